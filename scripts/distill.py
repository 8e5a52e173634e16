"""`hf-lgm distill`, for a clone: `--help` says how."""

from hf_lgm.cli.distill import main
from hf_lgm.cli.parsing import run_command

if __name__ == "__main__":
    run_command(main)
