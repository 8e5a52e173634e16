"""`hf-lgm`: the commands by their names."""

import importlib
import sys
from importlib.metadata import version

from .help import meant_flag
from .parsing import run_command
from .terminal import say

COMMANDS = {
    "distill": "distil a dataset into a few images per class, through one backbone or several",
    "evaluate": "a table of probes: sets x backbones, beside real images",
    "analyze": "plots of what a set shows of the backbones that look at it",
    "baselines": "real images in the form of a distilled set",
    "gallery": "a page to look at sets: large images, nearest real ones, growth, confusions",
    "publish": "push a set, or the probe trained on it, to the Hub",
    "env": "what is installed and where things are kept, for reports",
}
USAGE = "\n".join(
    [
        "usage: hf-lgm COMMAND [flags]",
        "",
        *(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        "",
        "hf-lgm COMMAND --help says more; hf-lgm --version says which one this is.",
        "On several GPUs: accelerate launch --num_processes N -m hf_lgm.cli.distill [flags]",
    ]
)


def main() -> None:
    """Run the command that is named first."""
    name, *flags = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        say(USAGE)
    elif name == "--version":
        say(f"hf_lgm {version('hf_lgm')}")
    elif name not in COMMANDS:
        meant = meant_flag(name, list(COMMANDS))
        advice = f"Did you mean {meant}?" if meant else f"They are {', '.join(COMMANDS)}."
        sys.exit(f"error: '{name}' is no command. {advice}")
    else:
        sys.argv = [f"hf-lgm {name}", *flags]
        run_command(importlib.import_module(f".{name}", __package__).main)
