"""Distil a labelled image dataset into a few images per class; without arguments the demo. `--help` says how."""

from pathlib import Path

from hf_lgm.cli.distill import main
from hf_lgm.cli.parsing import run_command

DEMO_CONFIG = Path(__file__).parent.parent / "recipes" / "demo.yaml"

if __name__ == "__main__":
    run_command(lambda: main(DEMO_CONFIG))
