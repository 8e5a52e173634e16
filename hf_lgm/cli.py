"""What the scripts share: flags over YAML files, the output folder, and errors as one sentence."""

import argparse
import difflib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from transformers import HfArgumentParser

from .checkpoint import all_checkpoints
from .inherited import ignored_fields
from .parallel import check_launch
from .set_files import DATA_FILE, PUBLISHED_FILES

# What a user can mend: files, the Hub, the disk, a missing package, a dataset, the memory, a setting.
_MENDABLE = (
    OSError,
    HTTPError,
    ImportError,
    DatasetsError,
    torch.OutOfMemoryError,
    ValueError,
    TypeError,
    FloatingPointError,
)


def parse_arguments(
    types: Sequence[Any], description: str, argv: Sequence[str], default_config: Path | None = None
) -> tuple[Any, ...]:
    """Objects of the given dataclasses from flags, over YAML files, over their defaults.

    Args:
        types (`Sequence[type]`): Dataclasses.
        description (`str`): What `--help` begins with.
        argv (`Sequence[str]`): The flags.
        default_config (`Path`, *optional*): YAML that is read where neither such a file, nor a model, nor a dataset is
            named.

    Raises:
        FileNotFoundError: If the YAML file is not there.
        ValueError: If it holds something that is not a flag, or the command line does.
    """
    parser = HfArgumentParser(list(types), description=description, formatter_class=_HelpFormatter)
    parser.add_argument(
        "--config", type=Path, nargs="+", help="YAML files of flags, later over earlier; the command line over them."
    )
    parser.set_defaults(output_dir="")
    hidden = ignored_fields()
    for action in parser._actions:
        if action.dest in hidden:  # as they are; LGMConfig refuses by name what is given all the same
            action.help, action.type, action.default = argparse.SUPPRESS, None, hidden[action.dest]
        elif action.option_strings[0].startswith(("--no_", "--no-")):
            action.help = f"Turns --{action.dest} off."
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(unknown[0], parser)
    configs = given.config or []
    if default_config and not (configs or given.model or given.dataset):
        configs = [default_config]
    for config in configs:
        parser.set_defaults(**_read_yaml(config, {action.dest: action for action in parser._actions}))
    return parser.parse_args_into_dataclasses(list(argv), look_for_args_file=False)[: len(types)]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside the flags, examples on lines of their own."""


def _refuse(flag: str, parser: argparse.ArgumentParser) -> None:
    known = [name for action in parser._actions for name in action.option_strings]
    similar = difflib.get_close_matches(flag, known, 1)
    raise ValueError(f"'{flag}' is no flag.{f' Did you mean {similar[0]}?' if similar else ''} --help lists them all.")


def default_output_dir(name: str, kind: str, models: Sequence[str], images_per_class: int) -> str:
    """`outputs/<dataset>-lgm-<model>-ipc<k>`, or what kind of set it is in place of `lgm`."""
    through = "-and-".join(Path(model).name for model in models)
    return f"outputs/{name}-{kind}-{through}-ipc{images_per_class}"


def prepare_output_dir(output_dir: str, overwrite: bool, resume: str | None = None, can_resume: bool = True) -> None:
    """Refuse to write over a run, unless it goes on or was given up; only our own files are ever removed.

    Args:
        output_dir (`str`): The folder.
        overwrite (`bool`): Whether it was given up.
        resume (`str`, *optional*): The checkpoint that it goes on at.
        can_resume (`bool`, *optional*, defaults to `True`): Whether there is such a flag.

    Raises:
        ValueError: If there is one.
    """
    folder = Path(output_dir)
    found = [path.name for path in all_checkpoints(folder)] + ([DATA_FILE] if (folder / DATA_FILE).exists() else [])
    if overwrite:
        for path in [*all_checkpoints(folder), folder / "runs"]:
            shutil.rmtree(path, ignore_errors=True)
        for name in (*PUBLISHED_FILES, "comparison.png", "timelapse.gif"):
            (folder / name).unlink(missing_ok=True)
    elif found and not resume:
        advice = "--resume_from_checkpoint auto or --overwrite" if can_resume else "--overwrite"
        raise ValueError(f"{folder}: found {found[-1]}: add {advice}")


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can mend is one sentence on standard error, and exit status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hf_lgm").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    _use_all_cores()
    try:
        check_launch()
        main()
    except _MENDABLE as error:
        if os.environ.get("HF_LGM_TRACEBACK"):
            raise
        advice = ""
        if isinstance(error, torch.OutOfMemoryError):
            advice = " Use a smaller --chunk_size, --views_per_step or --per_device_eval_batch_size."
        sys.exit(f"\nerror: {error}{advice}\n(HF_LGM_TRACEBACK=1 shows where)")


def _use_all_cores() -> None:
    """`accelerate launch` gives a CPU process one core; one process alone may have them all."""
    if os.environ.get("WORLD_SIZE", "1") == "1" and not torch.accelerator.is_available():
        torch.set_num_threads(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )


def _read_yaml(path: Path, known: dict[str, argparse.Action]) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file '{path}'.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config: {path} is not YAML: {error}") from error
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"--config: {path} has unknown flags: {', '.join(unknown)}. --help lists those there are.")
    for name, value in values.items():
        if known[name].nargs in ("+", "*"):  # one value where a list is meant
            values[name] = value if isinstance(value, list) else [value]
        elif value is False and name.endswith("_strategy"):  # YAML's reading of a bare no
            values[name] = "no"
    return values
