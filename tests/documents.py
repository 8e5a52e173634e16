"""What pages say can be typed: their code blocks, their commands against the real parsers, their links."""

import importlib
import re
import shlex
import sys
from pathlib import Path

from accelerate.commands.launch import launch_command_parser
from conftest import ROOT

from hf_lgm.cli import parsing

COMMANDS = ("distill", "evaluate", "analyze", "baselines", "gallery", "publish")

# What is not ours begins with one of these; `hf-lgm env` has no flags.
_OTHERS = ("hf auth login", "pip install ", "pre-commit install", "pytest", "mkdocs ", "hf-lgm env", "git ", "ruff ")
_WITHOUT_MEANING = ("#", "for ", "done", "CIFAR=")


class Parsed(Exception):
    """A command whose flags are understood goes no further."""


def code_blocks(text, language):
    """What stands in the fences of a language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def recipe(name):
    """The file of a recipe that is named alone, wherever recipes are kept."""
    found = [path for folder in ("recipes", "hf_lgm/recipes") if (path := ROOT / folder / f"{name}.yaml").is_file()]
    assert found, f"there is no recipe '{name}'"
    return found[0]


def commands(text):
    """All commands of the bash blocks, one a line, without comments."""
    for block in code_blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.sub(r"(^|\s+)#.*", "", line).split(" && "):
                if command.strip() and not command.strip().startswith(_WITHOUT_MEANING):
                    yield command.strip()


def check_command(line, monkeypatch):
    """Parse a line's flags by the parser of its command; what is not ours is known by its first words."""
    if line.startswith("pip install "):
        check_extras(line)
    if line.startswith(_OTHERS):
        return
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    words = words[1:] if words[0] == "srun" else words
    if words[:2] == ["accelerate", "launch"]:
        check_launch(words[2:], monkeypatch)
    elif words[0] == "torchrun":
        script = next(number for number, word in enumerate(words) if word.endswith(".py"))
        check_script(words[script:], monkeypatch)
    elif words[0] == "hf-lgm":
        check_flags(words[1], words[2:], monkeypatch)
    elif words[0] == "python":
        check_script(words[1:], monkeypatch)
    else:
        raise AssertionError(f"nothing is known of the command '{line}'")


def check_extras(line):
    """The extras that a line installs are those of pyproject.toml."""
    known = re.findall(r"^(\w+) = \[$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for extras in re.findall(r"\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= set(known), line


def check_launch(words, monkeypatch):
    """The launcher's own flags by its own parser, then those of what it launches."""
    args = launch_command_parser().parse_args(words)
    if args.module:
        package, _, name = args.training_script.rpartition(".")
        assert package == "hf_lgm.cli", args.training_script
        check_flags(name, args.training_script_args, monkeypatch)
    else:
        check_script([args.training_script, *args.training_script_args], monkeypatch)


def check_script(words, monkeypatch):
    """A file of the repository: of a script that has a command its flags, of the others the names of these."""
    path, flags = ROOT / words[0], words[1:]
    assert path.is_file(), words[0]
    if path.parent.name == "scripts" and path.stem in COMMANDS:
        return check_flags(path.stem, flags, monkeypatch)
    places = [path, *(ROOT / "hf_lgm").rglob("*.py")] if path.parent.name == "benchmarks" else [path]
    known = "".join(place.read_text(encoding="utf-8") for place in places)
    for flag in flags:
        if flag.startswith("--"):
            assert flag.removeprefix("--") in known, f"{words[0]} has no {flag}"


def check_flags(command, flags, monkeypatch):
    """Flags and their values by the command's own parser and dataclasses."""
    assert command in COMMANDS, command
    if "--help" in flags:
        return
    module = importlib.import_module(f"hf_lgm.cli.{command}")

    def parse_and_stop(types, description, argv, *rest):
        parsing.parse_arguments(types, description, argv)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(module, "parse_arguments", parse_and_stop)
        patch.setattr(sys, "argv", [command, *with_recipes(flags)])
        patch.chdir(ROOT)
        try:
            module.main()
        except Parsed:
            return
    raise AssertionError(f"{command} does not parse its flags")


def with_recipes(flags):
    """The same flags, with the files of recipes that are named alone."""
    found, of_config = [], False
    for flag in flags:
        of_config = flag == "--config" if flag.startswith("--") else of_config
        is_name = of_config and not flag.startswith("--") and "/" not in flag and not flag.endswith(".yaml")
        found.append(str(recipe(flag)) if is_name else flag)
    return found


def dead_links(path):
    """Links of a page to files that are not there, or to headings that these do not have."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def anchors(path: Path):
    """The headings of a page as links name them, by GitHub and by mkdocs alike."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in plain}
