"""`hf-lgm publish`, for a clone: `--help` says how."""

from hf_lgm.cli.parsing import run_command
from hf_lgm.cli.publish import main

if __name__ == "__main__":
    run_command(main)
