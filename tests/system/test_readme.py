"""What the README says can be typed."""

import re
from pathlib import Path

from conftest import ROOT

import hf_lgm

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(model_folder, dataset_folder, tmp_path, monkeypatch, capsys):
    """With the names replaced by local folders, and fewer steps."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 15
    for name, folder in (
        ("clane9/imagenet-100", dataset_folder),
        ("facebook/dinov2-base", model_folder),
        ("openai/clip-vit-base-patch16", model_folder),
        ('data["validation"]', 'data["test"]'),
        ("images_per_class=1", "images_per_class=1, max_steps=20, disable_tqdm=True"),
    ):
        assert name in code
        code = code.replace(name, folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'eval_accuracy': " in printed and "transfer to CLIP: " in printed


def test_every_file_and_flag_that_is_named_exists():
    root = Path(hf_lgm.__file__).parent.parent
    for path in re.findall(r"(?:scripts|recipes|docs|benchmarks)/[\w/]+\.\w+", README):
        assert (root / path).is_file(), path
    flags = [root / "hf_lgm" / name for name in ("arguments.py", "config.py", "settings.py")]
    places = [*(root / "scripts").glob("*.py"), *(root / "hf_lgm" / "cli").glob("*.py"), *flags]
    script = "".join(path.read_text(encoding="utf-8") for path in places)
    launcher = {
        "num_processes",
        "num_machines",
        "multi_gpu",
        "machine_rank",
        "main_process_ip",
        "main_process_port",
        "help",
    }
    benchmark = (root / "benchmarks" / "transfer.py").read_text(encoding="utf-8")
    for command in re.findall(r"python benchmarks/transfer.py(?:[^\n]*\\\n)*[^\n]*", README):
        assert all(flag in benchmark + script for flag in re.findall(r"--([a-z_]+)", command)), command
    for flag in set(re.findall(r"--([a-z_]+)", README.replace(command, ""))) - launcher:
        assert flag in script, flag
