"""The pages under docs/: code runs, commands parse, links lead somewhere, errors that are quoted are said."""

import ast
import re

import pytest
from conftest import ROOT, make_vit
from documents import check_command, code_blocks, commands, dead_links
from transformers import BitImageProcessorPil

from hf_lgm.arguments import LGMArguments
from hf_lgm.cli import arguments, distill
from hf_lgm.cli.config_files import read_config
from hf_lgm.publishing.repository import HubRepository
from hf_lgm.values import types_of

DOCS = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*DOCS, *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", ROOT / "model_cards" / "README.md"]
SLOW = ("evaluate.md", "several.md")  # tables of many probes
WITH_PYTHON = [
    pytest.param(path, marks=[pytest.mark.slow] if path.name in SLOW else [], id=path.name)
    for path in DOCS
    if code_blocks(path.read_text(encoding="utf-8"), "python")
]
IDS = {"ids": lambda path: path.name}


@pytest.fixture(scope="session")
def other_model_folder(tmp_path_factory):
    """A second model, of other weights."""
    folder = tmp_path_factory.mktemp("models") / "other-dinov2"
    make_vit(seed=1).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    BitImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def stand_ins(model_folder, other_model_folder, dataset_folder):
    """What is run in place of what a page names: small models and images from this disk, and few steps."""
    return {
        '"demo-vit"': f'"{model_folder}"',
        '"demo-convnext"': f'"{other_model_folder}"',
        '"demo-digits"': f'"{dataset_folder}"',
        '"facebook/dinov2-base"': f'"{model_folder}"',
        '"openai/clip-vit-base-patch16"': f'"{other_model_folder}"',
        '"clane9/imagenet-100"': f'"{dataset_folder}"',
        'data["validation"]': 'data["test"]',  # the splits of imagenet-100 and of these images
        "LGMConfig(": "LGMConfig(max_steps=2, views_per_step=2, eval_seeds=1, disable_tqdm=True, ",
    }


@pytest.fixture
def published(monkeypatch, tmp_path):
    """What pages publish goes nowhere, and is noted."""
    seen = []
    monkeypatch.setattr(HubRepository, "push", lambda self, files, message: seen.append(self.repo_id) or "address")
    return seen


@pytest.fixture
def demo_set(tmp_path, model_folder, dataset_folder):
    """`outputs/demo` as the demo would have left it: a set that was made through the stand-in."""
    from hf_lgm import load_images, select_baseline

    train, _ = load_images(dataset_folder)
    select_baseline("random", model_folder, train).save_pretrained(tmp_path / "outputs" / "demo")


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs_in_the_order_of_the_page(page, stand_ins, published, demo_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in code_blocks(page.read_text(encoding="utf-8"), "python"):
        for named, stand_in in stand_ins.items():
            block = block.replace(named, stand_in)
        exec(compile(block, page.name, "exec"), names)
    expected = {"share.md": ["user/digits-lgm-demo-vit-ipc1", "user/digits-probe"]}
    assert published == expected.get(page.name, [])


@pytest.mark.parametrize("page", DOCS, **IDS)
def test_commands_parse(page, monkeypatch):
    for command in commands(page.read_text(encoding="utf-8")):
        check_command(command, monkeypatch)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hf-lgm distill --max_stpes 3", "is no flag"),
        ("hf-lgm distill --max_steps many", "must be"),
        ("hf-lgm distill --config no-such-recipe", "there is no recipe"),
        ("accelerate launch -m hf_lgm.cli.distill --layers -1", "layers can't be negative"),
        ("accelerate launch scripts/nothing.py", "scripts/nothing.py"),
        ("python scripts/convert_mocov3.py --chekpoint x", "has no --chekpoint"),
        ('pip install -e ".[tim]"', "tim"),
        ("hf-lgm destill", "destill"),
        ("htop", "nothing is known"),
    ],
)
def test_a_wrong_command_is_found(line, why, monkeypatch):
    with pytest.raises((AssertionError, ValueError), match=why):
        check_command(line, monkeypatch)


@pytest.mark.parametrize("page", DOCS, **IDS)
def test_flags_that_are_named_in_the_text_exist(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    kept = [ROOT / "scripts", ROOT / "hf_lgm"]
    source = "".join(path.read_text(encoding="utf-8") for folder in kept for path in folder.rglob("*.py"))
    foreign = {"help", "requeue", "signal", "cpu", "num_processes"}  # of SLURM and the launcher
    for flag in set(re.findall(r"--([a-z][a-z0-9_]*)", text)) - foreign:
        assert re.search(rf"\b{flag}\b", source), flag
    for file in re.findall(r"`((?:scripts|benchmarks|tests|examples|recipes)/[\w/.-]+\.\w+)", text):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("page", DOCS, **IDS)
def test_yaml_is_flags(page, tmp_path):
    kinds = (arguments.ModelArguments, arguments.DataArguments, LGMArguments, distill.RunArguments)
    types = {name: kind for each in kinds for name, kind in types_of(each).items()}
    for block in code_blocks(page.read_text(encoding="utf-8"), "yaml"):
        (tmp_path / "flags.yaml").write_text(block, encoding="utf-8")
        assert read_config(tmp_path / "flags.yaml", types)


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(page):
    assert list(dead_links(page)) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading: here\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#a-heading-here) [c](gone.md) [d](there.md#gone) [e](#gone)")
    assert list(dead_links(page)) == ["gone.md", "there.md#gone", "#gone"]


def sentences():
    """Strings of the package as they stand in its source, with … for what is put in."""
    for path in (ROOT / "hf_lgm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"\{\w+\}", "…", node.value)


def quoted():
    """The sentences of the page of errors."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return [quote.strip() for _, quote in re.findall(r"^- (`+)(.*)\1$", text, flags=re.MULTILINE)]


def has_in_order(text, parts):
    """Whether a text has these parts, one after the other."""
    place = 0
    for part in parts:
        if (found := text.find(part, place)) < 0:
            return False
        place = found + len(part)
    return True


def test_every_error_that_is_quoted_is_said():
    said = list(sentences())
    assert len(quoted()) > 100
    for sentence in quoted():
        assert any(has_in_order(text, sentence.split("…")) for text in said), sentence


def test_the_navigation_has_every_page():
    named = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(named) == [path.name for path in DOCS]


def test_the_reference_has_every_public_name():
    from hf_lgm import _PLACES

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))
    assert {f"hf_lgm.{place}.{name}" for name, place in _PLACES.items()} <= shown
