"""The house: what may import what, and what an import costs."""

import ast
import importlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import hf_lgm
from hf_lgm import former

# Each room may import from those on earlier floors, and from rooms on its own floor that stand before it.
FLOORS = [
    [
        "values",
        "processes",
        "whole_files",
        "settings",
        "trackers",
        "randomness",
        "schedule",
        "progress",
        "distributed",
        "hub",
        "demo",
    ],
    ["arguments", "config", "data", "backbones"],
    ["features", "publishing"],
    ["distillation"],
    ["evaluation"],
    ["analysis", "gallery"],
    ["trainer", "distiller"],
    ["cli"],
    ["__main__"],
]
FORMER = {"former"}  # finds what was in other places
ORDER = [room for floor in FLOORS for room in floor]


def rooms_imported(path):
    """Rooms that a module imports from, wherever in it the import stands; not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    depth = len(path.relative_to(ROOT / "hf_lgm").parts)  # dots that lead to the package itself
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and id(node) not in for_types:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def modules():
    return sorted(
        path for path in (ROOT / "hf_lgm").rglob("*.py") if path.parent != ROOT / "hf_lgm" or path.stem != "__init__"
    )


def test_every_room_has_a_floor():
    top = {path.relative_to(ROOT / "hf_lgm").parts[0].removesuffix(".py") for path in modules()}
    assert top == set(ORDER) | FORMER


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "hf_lgm")))
def test_imports_lead_down(path):
    room = path.relative_to(ROOT / "hf_lgm").parts[0].removesuffix(".py")
    if room in FORMER:
        return
    for other in rooms_imported(path):
        assert ORDER.index(other) <= ORDER.index(room), f"{room} imports {other}, which stands above it"


def messages(path):
    """Strings of a module that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    said = {id(node.body[0].value) for node in documented if isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


@pytest.mark.parametrize("room", [room for room in ORDER if room not in ("cli", "__main__")])
def test_messages_name_fields_and_commands_name_flags(room):
    """A flag is its field with two dashes; who calls from Python has no flags. Whole commands may be typed."""
    paths = [path for path in modules() if path.relative_to(ROOT / "hf_lgm").parts[0].removesuffix(".py") == room]
    assert paths
    found = [text for path in paths for text in messages(path) if re.search(r"--[a-z]", text)]
    assert not [
        text for text in found if not re.search("python |accelerate launch|torchrun|hf-lgm | --repo_id ", text)
    ]


def test_names_at_the_front_door():
    assert [name for name in hf_lgm.__all__ if not hasattr(hf_lgm, name)] == []
    assert set(hf_lgm.__all__) <= set(dir(hf_lgm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_lgm.nothing


@pytest.mark.parametrize(
    "name",
    [
        "probe_model.ProbeModel",
        "demo.load_digits_images",
        "baselines.with_source_images",
        "baselines.select_baseline",
        "metrics.MacroAccuracy",
    ],
)
def test_former_names_that_cards_and_messages_say(name):
    module, _, attribute = name.partition(".")
    assert hasattr(importlib.import_module(f"hf_lgm.{module}"), attribute)


@pytest.mark.parametrize("module", former._PLACES)
def test_former_modules_are_found_where_they_are_now(module, caplog):
    found = importlib.import_module(f"hf_lgm.{module}")
    for place in former._PLACES[module]:
        now = importlib.import_module(f"hf_lgm.{place}")
        name = next(name for name in vars(now) if not name.startswith("_"))
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match=f"module 'hf_lgm.{module}' has no attribute 'nothing'"):
        _ = found.nothing


def loaded_after(code):
    """Which heavy packages a fresh interpreter has loaded after some code."""
    heavy = ("torch", "datasets", "scipy", "sklearn", "diffusers", "matplotlib", "evaluate", "pandas")
    report = f"import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_an_import_loads_what_is_asked_for():
    assert loaded_after("import hf_lgm") == []
    names = ", ".join(hf_lgm.__all__)
    assert loaded_after(f"from hf_lgm import {names}") == ["torch", "datasets", "pandas"]


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("distill", ["--help"]),
        ("distill", ["--max_stpes", "3"]),
        ("distill", ["--dataset", "x"]),
        ("distill", ["--max_steps", "0"]),
        ("evaluate", []),
        ("evaluate", ["--help"]),
        ("analyze", []),
        ("analyze", ["x", "--projection", "tsne"]),
        ("baselines", ["--crop_scale", "2"]),
        ("publish", []),
        ("gallery", []),
        ("gallery", ["set", "--model", "demo-vit", "demo-convnext"]),
    ],
)
def test_help_and_mistakes_are_answered_before_torch_is_loaded(command, flags):
    code = f"""
import sys
from hf_lgm.cli.parsing import run_command
from hf_lgm.cli.{command} import main
sys.argv = ["{command}", *{flags}]
try:
    run_command(main)
except SystemExit:
    pass
else:
    raise AssertionError("went on")
"""
    assert loaded_after(code) == []
