"""The scripts as a user types them, in processes of their own."""

import os
import subprocess
import sys

from conftest import ROOT

QUICK = [
    "--max_steps",
    "4",
    "--views_per_step",
    "2",
    "--eval_seeds",
    "2",
    "--save_steps",
    "2",
    "--disable_tqdm",
    "true",
]


def run(*flags, script="distill.py", cwd, launcher=(sys.executable,), check=True, **environment):
    command = [*launcher, str(ROOT / "scripts" / script), *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


def said_by(main, argv, monkeypatch, capsys):
    """What a command prints in this process, which starts faster, and the error if there was one."""
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    try:
        main()
    except SystemExit as exit_:
        return capsys.readouterr().out, exit_.code
    return capsys.readouterr().out, None
