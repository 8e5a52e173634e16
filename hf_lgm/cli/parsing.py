"""What the commands share: flags over YAML files, the output folder, and errors as one sentence."""

import argparse
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from ..arguments import INSTEAD
from ..demo import DEMO_DATASET, DEMO_MODELS
from ..hub import last_part, without_folders
from ..settings import PRESETS, PresetName
from ..values import converted, types_of
from . import terminal
from .config_files import RECIPES, config_path, present_name, read_config
from .help import HelpAction, help_text, meant_flag

# Flags of files and folders, which need not be there yet; other values with a slash may be names on the Hub.
_FOLDERS = ("output_dir", "resume_from_checkpoint", "config")


def parse_arguments(
    types: Sequence[Any], description: str, argv: Sequence[str], of_demo: Collection[str] = ()
) -> tuple[Any, ...]:
    """Objects of the given dataclasses from flags, over YAML files, over their defaults.

    What `--help` says of a flag is what the docstring of its dataclass says of the field.

    Args:
        types (`Sequence[type]`): Dataclasses.
        description (`str`): What `--help` begins with.
        argv (`Sequence[str]`): The flags.
        of_demo (`Collection[str]`, *optional*): What is taken of the demo's recipe, where nothing else says it, by a
            command whose model and dataset are the demo's.

    Raises:
        FileNotFoundError: If a YAML file is not there.
        ValueError: If one holds something that is not a flag, or a value of another type, or the command line does.
    """
    parser = _parser(types, description)
    argv = [_renamed(flag) for flag in argv]
    flags = {action.dest for action in parser._actions}
    # What is not among the flags stays None, and comes from the files or from the dataclasses.
    known, unknown = parser.parse_known_args(argv, argparse.Namespace(**dict.fromkeys(flags)))
    if unknown:
        _refuse(unknown[0], parser)
    given = {name: value for name, value in vars(known).items() if value is not None}
    if given.pop("verbose", False):
        terminal.show_everything()
    wanted = {name: kind for each in types for name, kind in types_of(each).items()}
    values: dict[str, Any] = {}
    for config in given.pop("config", []):
        values |= read_config(config_path(config), wanted)
    values |= {name: converted(value, wanted[name], f"--{name}") for name, value in given.items()}
    preset = _preset_settings(values.get("preset", "default"), wanted)
    demo = demo_settings(values, {name: wanted[name] for name in of_demo})
    values = {**preset, "output_dir": "", **demo, **values}
    return tuple(each(**{name: values[name] for name in types_of(each) if name in values}) for each in types)


def with_name_of_sets(flags: Sequence[str]) -> list[str]:
    """The flags of a command that looks at sets, which may stand first without their `--sets`."""
    return ["--sets", *flags] if flags and not flags[0].startswith("-") else list(flags)


def _preset_settings(name: PresetName, wanted: dict[str, Any]) -> dict[str, Any]:
    """What a preset says, and the recipe of its name where there is one, which knows models too."""
    recipe = RECIPES / f"{name}.yaml"
    return {**PRESETS[name], **(read_config(recipe, wanted, ignore_others=True) if recipe.is_file() else {})}


def demo_settings(values: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What the demo's recipe says of these flags, where model and dataset are the demo's or not named at all.

    Args:
        values (`dict`): What is given.
        wanted (`dict[str, type]`): The flags, with their types.
    """
    models = values.get("model") or []
    if not set(models) <= set(DEMO_MODELS) or values.get("dataset") not in (None, DEMO_DATASET):
        return {}
    settings = read_config(RECIPES / "demo.yaml", wanted, ignore_others=True)
    if models:  # a run of one's own, which is not written over the demo's
        settings.pop("output_dir", None)
    others = [name for name in settings.pop("eval_models", []) if name not in models]
    return {**settings, "eval_models": others} if "eval_models" in wanted else settings


def described_fields(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its parents say of each field, in one line."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        _, _, fields = (inspect.getdoc(parent) or "").partition("Args:\n")
        fields = re.split(r"\n(?=\S)", fields)[0]  # up to the next section
        for name, text in re.findall(r"^    (\w+) \(.*?\): (.*(?:\n      .*)*)", fields, flags=re.MULTILINE):
            found[name] = re.sub(r"\[`~?([\w.]+)`\]", r"\1", " ".join(text.split()))  # references are for pages
    return found


def default_output_dir(name: str, kind: str, models: Sequence[str], images_per_class: int) -> str:
    """`outputs/<dataset>-lgm-<model>-ipc<k>`, or what kind of set it is in place of `lgm`."""
    through = "-and-".join(Path(model).name for model in models)
    return f"outputs/{name}-{kind}-{through}-ipc{images_per_class}"


def check_output_dir(
    output_dir: str, overwrite: bool, resume: str | None = None, can_resume: bool = True, read: Sequence[str] = ()
) -> None:
    """Refuse to write over a run, unless it goes on or was given up, and over what is not ours. Removes nothing.

    Args:
        output_dir (`str`): The folder.
        overwrite (`bool`): Whether the run was given up.
        resume (`str`, *optional*): The checkpoint that it goes on at.
        can_resume (`bool`, *optional*, defaults to `True`): Whether there is such a flag.
        read (`Sequence[str]`, *optional*): Folders that are read, and so not written to.

    Raises:
        ValueError: If there is a run, or it is to go on and was given up; or the folder is one that is read.
        FileExistsError: If there is something else, or another process works there.
    """
    from ..distillation.output_folder import check_is_ours, earlier_run
    from ..distillation.run_lock import RunLock

    if source := next(
        (name for name in read if Path(name).expanduser().resolve() == Path(output_dir).resolve()), None
    ):
        raise ValueError(f"--output_dir: '{source}' is what is read here: give another folder.")
    check_is_ours(output_dir)
    if terminal.is_first():  # the others come later, when it may hold the folder
        RunLock(output_dir).check_free()
    is_own = resume is not None and (resume == "auto" or Path(resume).resolve().parent == Path(output_dir).resolve())
    if overwrite and is_own:
        raise ValueError("--overwrite gives up the run that --resume_from_checkpoint goes on with: give one of them.")
    if not (overwrite or resume) and (found := earlier_run(output_dir)):
        advice = "--resume_from_checkpoint auto or --overwrite" if can_resume else "--overwrite"
        raise ValueError(f"{output_dir}: found {found}: add {advice}")


def published_command(launch: str, flags: Sequence[str]) -> str:
    """A command as it may be published: of paths the last part, and no token."""
    shown, current = [], ""
    for flag in flags:
        name, equals, value = flag.partition("=") if flag.startswith("--") else ("", "", flag)
        current = present_name(name[2:].replace("-", "_")) if name else current
        if "token" in current:
            value = value and "…"
        else:
            value = last_part(value) if current in _FOLDERS else without_folders(value)
        shown.append(f"{name}{equals}{value}")
    return shlex.join([*launch.split(), *shown])


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; what a user can mend is one sentence on standard error, and exit status 1.

    After Ctrl-C it is 130, as of any command.
    """
    try:
        with terminal.speaking():
            main()
    except KeyboardInterrupt as stop:
        terminal.say(f"\nstopped: {str(stop) or 'nothing more was saved.'}", sys.stderr)
        sys.exit(130)
    except Exception as found:  # a sentence of what can be mended, of any kind; the rest is raised again
        error = _named(found)
        if os.environ.get("HF_LGM_TRACEBACK") or not _is_mendable(error):
            raise
        advice = ""
        if type(error).__name__ == "OutOfMemoryError":
            advice = " Use a smaller --chunk_size, --views_per_step or --per_device_eval_batch_size."
        sys.exit(terminal.printable(f"\nerror: {error}{advice}\n(HF_LGM_TRACEBACK=1 shows where)"))


def prepare_torch() -> None:
    """Refuse launches that could not be what was meant, and use the cores there are. Loads torch.

    `accelerate launch` gives a CPU process one thread; one process alone may have all cores. Without it, torch itself
    takes all cores, or as many as OMP_NUM_THREADS says.

    Raises:
        ValueError: See [`~hf_lgm.distributed.check_launch`].
    """
    import torch

    from ..distributed import check_launch

    check_launch()
    terminal.quieten_libraries()
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if is_alone and "ACCELERATE_MIXED_PRECISION" in os.environ and not torch.accelerator.is_available():
        torch.set_num_threads(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )


def _named(error: Exception) -> Exception:
    """The same error, or a sentence in place of what PyTorch says when another process has ended."""
    if not isinstance(error, RuntimeError):
        return error
    from ..distributed import saying_who_is_missing

    try:
        with saying_who_is_missing():
            raise error
    except Exception as named:  # the same one, or one that says which process is missing
        return named


class _Parser(HfArgumentParser):
    """Says in a sentence what is wrong with the command line, without all flags before it."""

    shows_all = False  # of its help

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ValueError(re.sub(r"^argument (--\w+)\S*:", r"\1:", message))

    def format_help(self) -> str:
        """The flags by what they are about; those that matter first, unless all are asked for."""
        return help_text(self, self.shows_all)


def _parser(types: Sequence[Any], description: str) -> argparse.ArgumentParser:
    """The flags of these dataclasses and `--config`; values stay as they were typed."""
    parser = _Parser(list(types), description=description, allow_abbrev=False)
    said = {name: text for kind in types for name, text in described_fields(kind).items()}
    for action in parser._actions:
        if action.dest in said:
            if action.type in (int, float) and not action.choices:
                action.metavar = "N" if action.type is int else "X"
            action.type = None  # `converted` says what is wrong, of flags and files alike
            if action.choices:
                action.metavar, action.choices = "|".join(map(str, action.choices)), None
            action.help = said[action.dest]
    parser.add_argument(
        "--config", nargs="+", help="YAML files of flags, or names of recipes, later over earlier; flags over them."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="Print what libraries say too.")
    parser.add_argument("--help-all", action=HelpAction, nargs=0, help="The same of all flags.")
    parser.set_defaults(output_dir=None)  # each command has its own
    return parser


def _is_mendable(error: Exception) -> bool:
    """Whether a user can mend it: files, the Hub, the disk, a missing package, a dataset, the memory, a setting."""
    if isinstance(error, (OSError, ImportError, ValueError, TypeError, FloatingPointError)):
        return True
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    return isinstance(error, (DatasetsError, HTTPError)) or type(error).__name__ == "OutOfMemoryError"


def _renamed(flag: str) -> str:
    """A flag by its present name."""
    name, equals, value = flag.removeprefix("--").partition("=")
    return f"--{present_name(name)}{equals}{value}" if flag.startswith("--") else flag


def _refuse(flag: str, parser: argparse.ArgumentParser) -> None:
    """Say of a flag that there is none such, and which may be meant."""
    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    if name in INSTEAD:
        raise ValueError(f"LGMConfig does not take {name}; use {INSTEAD[name]}.")
    meant = meant_flag(name, [action.dest for action in parser._actions])
    raise ValueError(f"'{flag}' is no flag.{f' Did you mean --{meant}?' if meant else ''} --help lists them all.")
