"""The tests with the oldest versions that pyproject.toml allows, and with the newest that install.

    python scripts/versions.py oldest
    python scripts/versions.py newest -- -m "slow or not slow"

makes a virtual environment of its own, installs this clone with the extra `test`, and runs pytest with what
follows `--`. torch is that of constraints.txt: others bring gigabytes on machines without a GPU. For Python
3.11 or later.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Install and test; the status is that of the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["oldest", "newest"])
    parser.add_argument("pytest", nargs="*", help="what pytest is told")
    args = parser.parse_args()
    return tested(args.kind, args.pytest)


def tested(kind: str, pytest: list[str]) -> int:
    """The status of the tests with one kind of versions."""
    with tempfile.TemporaryDirectory(prefix=f"hf_lgm-{kind}-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        held = Path(folder) / "held.txt"
        held.write_text("\n".join(oldest()) if kind == "oldest" else "")
        install = [python, "-m", "pip", "install", "-q", "-c", "constraints.txt", "-c", str(held), "-e", ".[test]"]
        subprocess.run(install, cwd=ROOT, check=True)
        print(subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True).stdout, flush=True)
        warnings = ["-W", "default"] if kind == "oldest" else []  # of what has been put out of use since
        return subprocess.run([python, "-m", "pytest", "-n", "auto", *warnings, *pytest], cwd=ROOT).returncode


def oldest() -> list[str]:
    """The lower bounds of what the package and its tests need, but of torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["test"], *extras["plots"], *extras["video"]]
    bounds = [re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", each) for each in needed]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound and bound[1] != "torch"]


if __name__ == "__main__":
    sys.exit(main())
