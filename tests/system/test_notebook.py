"""The notebook's cells, one after the other in one process, as a kernel runs them."""

import ast
import json
import re

import pytest
from conftest import ROOT
from PIL import Image

NOTEBOOK = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """Run a cell; returns the value of its last line, which a notebook shows."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_format_is_whole():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(names)) == len(names)
    assert all(cell["outputs"] == [] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_cells_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    shown = [run_cell(source, names) for source in CELLS]
    assert sum(isinstance(value, Image.Image) for value in shown) == 2
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^\| ([\w ]+?) +\| +([\d.]+)", printed, flags=re.MULTILINE))
    assert float(rows["distilled"]) > 75 > float(rows["random real images"])
    assert re.search(r"on demo-convnext: \d", printed)
