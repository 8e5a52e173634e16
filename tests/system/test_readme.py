"""What the README says can be typed."""

import re
import shutil

from conftest import ROOT
from documents import check_command, commands

# Flags of Accelerate's launcher and of every command, which the text names too.
LAUNCHER = {
    "num_processes",
    "num_machines",
    "multi_gpu",
    "machine_rank",
    "main_process_ip",
    "main_process_port",
    "help",
}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_to_its_end():
    assert len(README.splitlines()) <= 130


def test_the_python_example_runs(model_folder, dataset_folder, tmp_path, monkeypatch, capsys):
    """With the names replaced by local folders, and fewer steps."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 10
    other = shutil.copytree(model_folder, tmp_path / "other")
    for name, folder in (
        ("clane9/imagenet-100", dataset_folder),
        ("facebook/dinov2-base", model_folder),
        ("openai/clip-vit-base-patch16", str(other)),
        ('data["validation"]', 'data["test"]'),
        ('output_dir="out"', 'output_dir="out", max_steps=10, disable_tqdm=True'),
    ):
        assert name in code
        code = code.replace(name, folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert "tiny-dinov2" in head and "other" in head and any(row.startswith("| distilled ") for row in rows)


def test_every_file_that_is_named_exists():
    for path in re.findall(r"(?:scripts|recipes|docs|benchmarks|examples)/[\w/-]+\.\w+", README):
        assert (ROOT / path).is_file(), path


def test_commands_parse(monkeypatch):
    found = list(commands(README))
    assert len(found) >= 3
    for command in found:
        check_command(command, monkeypatch)


def test_every_flag_that_is_named_in_the_text_exists():
    text = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    script = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hf_lgm").rglob("*.py"))
    for flag in set(re.findall(r"--([a-z][a-z0-9_]*)", text)) - LAUNCHER:
        assert re.search(rf"\b{flag}\b", script), flag
