"""`hf-lgm evaluate`, for a clone: `--help` says how."""

from hf_lgm.cli.evaluate import main
from hf_lgm.cli.parsing import run_command

if __name__ == "__main__":
    run_command(main)
