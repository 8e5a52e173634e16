"""What the commands share: flags over YAML files, the output folder, and errors as one sentence."""

import argparse
import difflib
import inspect
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..arguments import INSTEAD
from ..hub import without_folders

logger = logging.getLogger(__name__)

# Former names of flags, which are understood until 0.3.
RENAMED = {"eval_protocol": "protocol"}


def parse_arguments(
    types: Sequence[Any], description: str, argv: Sequence[str], default_config: Path | None = None
) -> tuple[Any, ...]:
    """Objects of the given dataclasses from flags, over YAML files, over their defaults.

    What `--help` says of a flag is what the docstring of its dataclass says of the field.

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
    said = {name: text for kind in types for name, text in described_fields(kind).items()}
    for action in parser._actions:
        if action.option_strings[0].startswith(("--no_", "--no-")):
            action.help = f"Turns --{action.dest} off."
        elif action.dest in said:
            action.help = said[action.dest].replace("%", "%%")
    argv = [_renamed(flag) for flag in argv]
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(unknown[0], parser)
    configs = given.config or []
    if default_config and not (configs or given.model or given.dataset):
        configs = [default_config]
    for config in configs:
        parser.set_defaults(**_read_yaml(config, {action.dest: action for action in parser._actions}))
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)[: len(types)]


def described_fields(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its parents say of each field, in one line."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        _, _, fields = (inspect.getdoc(parent) or "").partition("Args:\n")
        fields = re.split(r"\n(?=\S)", fields)[0]  # up to the next section
        for name, text in re.findall(r"^    (\w+) \(.*?\): (.*(?:\n      .*)*)", fields, flags=re.MULTILINE):
            found[name] = re.sub(r"\[`~?([\w.]+)`\]", r"\1", " ".join(text.split()))  # references are for pages
    return found


def default_output_dir(name: str, kind: str, models: Sequence[str], images_per_class: int) -> str:
    """`outputs/<dataset>-lgm-<model>-ipc<k>`, or what kind of set it is in place of `lgm`."""
    through = "-and-".join(Path(model).name for model in models)
    return f"outputs/{name}-{kind}-{through}-ipc{images_per_class}"


def check_output_dir(output_dir: str, overwrite: bool, resume: str | None = None, can_resume: bool = True) -> None:
    """Refuse to write over a run, unless it goes on or was given up, and over what is not ours. Removes nothing.

    Args:
        output_dir (`str`): The folder.
        overwrite (`bool`): Whether the run was given up.
        resume (`str`, *optional*): The checkpoint that it goes on at.
        can_resume (`bool`, *optional*, defaults to `True`): Whether there is such a flag.

    Raises:
        ValueError: If there is a run, or it is to go on and was given up.
        FileExistsError: If there is something else.
    """
    from ..distillation.output_folder import check_is_ours, earlier_run

    check_is_ours(output_dir)
    is_own = resume is not None and (resume == "auto" or Path(resume).resolve().parent == Path(output_dir).resolve())
    if overwrite and is_own:
        raise ValueError("--overwrite gives up the run that --resume_from_checkpoint goes on with: give one of them.")
    if not (overwrite or resume) and (found := earlier_run(output_dir)):
        advice = "--resume_from_checkpoint auto or --overwrite" if can_resume else "--overwrite"
        raise ValueError(f"{output_dir}: found {found}: add {advice}")


def published_command(launch: str, flags: Sequence[str]) -> str:
    """A command as it may be published: of paths the last part, and no token."""
    shown = []
    for number, flag in enumerate(flags):
        name, equals, value = flag.partition("=") if flag.startswith("--") else ("", "", flag)
        is_secret = "token" in name or (number > 0 and "token" in flags[number - 1] and not name)
        shown.append(f"{name}{equals}{'…' if is_secret and value else without_folders(value)}")
    return shlex.join([*launch.split(), *shown])


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; what a user can mend is one sentence on standard error, and exit status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hf_lgm").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        main()
    except Exception as error:
        if os.environ.get("HF_LGM_TRACEBACK") or not _is_mendable(error):
            raise
        advice = ""
        if type(error).__name__ == "OutOfMemoryError":
            advice = " Use a smaller --chunk_size, --views_per_step or --per_device_eval_batch_size."
        sys.exit(f"\nerror: {error}{advice}\n(HF_LGM_TRACEBACK=1 shows where)")


def prepare_torch() -> None:
    """Refuse launches that could not be what was meant, and use the cores there are. Loads torch.

    `accelerate launch` gives a CPU process one thread; one process alone may have all cores. Without it, torch itself
    takes all cores, or as many as OMP_NUM_THREADS says.

    Raises:
        ValueError: See [`~hf_lgm.distributed.check_launch`].
    """
    import torch

    from ..distributed import check_launch

    check_launch()
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if is_alone and "ACCELERATE_MIXED_PRECISION" in os.environ and not torch.accelerator.is_available():
        torch.set_num_threads(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside the flags, examples on lines of their own."""


def _is_mendable(error: Exception) -> bool:
    """Whether a user can mend it: files, the Hub, the disk, a missing package, a dataset, the memory, a setting."""
    if isinstance(error, (OSError, ImportError, ValueError, TypeError, FloatingPointError)):
        return True
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    return isinstance(error, (DatasetsError, HTTPError)) or type(error).__name__ == "OutOfMemoryError"


def _renamed(flag: str) -> str:
    """A flag by its present name; one that was renamed is said."""
    name, equals, value = flag.removeprefix("--").partition("=")
    now = RENAMED.get(name.replace("-", "_"))
    if not flag.startswith("--") or now is None:
        return flag
    logger.warning("--%s is called --%s now; the old name goes with 0.3.", name, now)
    return f"--{now}{equals}{value}"


def _refuse(flag: str, parser: argparse.ArgumentParser) -> None:
    """Say of a flag that there is none such, and which may be meant."""
    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    if name in INSTEAD:
        raise ValueError(f"LGMConfig does not take {name}; use {INSTEAD[name]}.")
    known = [name for action in parser._actions for name in action.option_strings]
    similar = difflib.get_close_matches(flag, known, 1, cutoff=0.75)
    raise ValueError(f"'{flag}' is no flag.{f' Did you mean {similar[0]}?' if similar else ''} --help lists them all.")


def _read_yaml(path: Path, known: dict[str, argparse.Action]) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file '{path}'.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config: {path} is not YAML: {error}") from error
    values = {_renamed(f"--{name}").removeprefix("--"): value for name, value in values.items()}
    unknown = sorted(set(values) - set(known))
    if advice := [f"{name}: use {INSTEAD[name]}" for name in unknown if name in INSTEAD]:
        raise ValueError(f"--config: {path} has fields that LGMConfig does not take: {'; '.join(advice)}.")
    if unknown:
        raise ValueError(f"--config: {path} has unknown flags: {', '.join(unknown)}. --help lists those there are.")
    for name, value in values.items():
        if known[name].nargs in ("+", "*"):  # one value where a list is meant
            values[name] = value if isinstance(value, list) else [value]
        elif value is False and name.endswith("_strategy"):  # YAML's reading of a bare no
            values[name] = "no"
    return values
