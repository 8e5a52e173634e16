"""What `--help` shows: flags by what they are about, those that matter first."""

import argparse
import difflib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

WIDTH = 100

# For each group the flags that `--help` shows, and those that `--help-all` shows besides.
GROUPS = {
    "model": (
        "model",
        "feature_pooling image_size resize_ratio image_mean image_std revision trust_remote_code strip_prefix",
    ),
    "data": (
        "dataset eval_split classes max_train_samples",
        "dataset_config train_split max_eval_samples image_column_name label_column_name group_column_name streaming "
        "decode skip_bad_images max_image_pixels dataset_name license license_name license_link",
    ),
    "images": (
        "images_per_class real_images_per_class init flip kind neighbors_of",
        "init_weight also_init channels crop_scale bounded_crops noise_std noise_mean views_per_step view_sizes "
        "parameterization vae growth_share growth_steps",
    ),
    "objective": (
        "preset max_steps layers",
        "objective learning_rate lr_scheduler_type backbones_per_step real_features balance_classes cluster_classes "
        "label_learning_rate probe_std adam_beta1 adam_beta2 adam_epsilon",
    ),
    "evaluation": (
        "sets eval_models baselines references projection protocol",
        "eval_seeds eval_learning_rate eval_strategy eval_steps eval_delay",
    ),
    "page": ("static app space", ""),
    "run": (
        "config output_dir overwrite resume_from_checkpoint plan seed",
        "verbose num_gpus save_strategy save_steps save_total_limit logging_steps logging_first_step preview_steps "
        "report_to run_name project disable_tqdm",
    ),
    "Hub": (
        "folder repo_id tag private probe results include_source_images push_to_hub hub_dataset_id",
        "hub_private_repo hub_token",
    ),
    "machine": (
        "chunk_size",
        "use_cpu bf16 per_device_eval_batch_size dataloader_num_workers ddp_backend ddp_timeout local_rank",
    ),
}

# So few that all of them are shown.
_FEW = 24

# What others call it.
_SYNONYMS = {
    "backbone": "model",
    "batch_size": "chunk_size",
    "data": "dataset",
    "epochs": "max_steps",
    "gpus": "num_gpus",
    "iterations": "max_steps",
    "lr": "learning_rate",
    "num_steps": "max_steps",
    "out": "output_dir",
    "output": "output_dir",
    "recipe": "config",
    "resume": "resume_from_checkpoint",
    "steps": "max_steps",
}


class HelpAction(argparse.Action):
    """Show all flags, and end."""

    def __call__(self, parser: Any, *_: Any) -> None:
        """As argparse does for `--help`."""
        parser.shows_all = True
        parser.print_help()
        parser.exit()


def help_text(parser: argparse.ArgumentParser, shows_all: bool) -> str:
    """What `--help` prints.

    Args:
        parser (`argparse.ArgumentParser`): Has the flags.
        shows_all (`bool`): Whether all of them are shown, and not the most needed ones alone.
    """
    off = ("--no_", "--no-")  # of a flag with a value
    flags = {action.dest: action for action in parser._actions if not action.option_strings[0].startswith(off)}
    shows_all = shows_all or len(flags) <= _FEW
    own = [name for name in flags if name not in {"help", "help_all", *_grouped()}]  # of a benchmark
    groups = {name: (f"{first} {rest}" if shows_all else first).split() for name, (first, rest) in GROUPS.items()}
    shown = [f"usage: {parser.prog} [flags]", parser.description or ""]
    for group, names in {**groups, "besides": own}.items():
        if names := [name for name in names if name in flags]:
            shown.append("\n".join([f"{group}:", *(line for name in names for line in _lines(flags[name]))]))
    if not shows_all:
        shown.append(f"--help-all shows all {len(flags) - 2} flags.")
    return "\n\n".join(part.strip("\n") for part in shown) + "\n"


def meant_flag(name: str, known: Sequence[str]) -> str | None:
    """The flag that is meant by a name that is none: by another word for it, its initials, or its spelling."""
    initials = {"".join(word[0] for word in flag.split("_")): flag for flag in known if "_" in flag}
    for meant in (_SYNONYMS.get(name), initials.get(name)):
        if meant in known:
            return meant
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff=0.75)), None)


def _grouped() -> Iterator[str]:
    for first, rest in GROUPS.values():
        yield from first.split()
        yield from rest.split()


def _lines(action: argparse.Action) -> Iterator[str]:
    """The flag with its values, then what it means and what it is where it is not given."""
    values = {"+": " …", "?": ""}.get(str(action.nargs), "")
    name = action.metavar or action.dest.rpartition("_")[2].upper()
    is_switch = action.nargs == "?" or isinstance(action.default, bool)
    yield f"  --{action.dest} {'true|false' if is_switch else f'{name}{values}'}"
    text = (action.help or "").replace("`", "")
    if action.default not in (None, "", [], False) and action.default is not argparse.SUPPRESS:
        shown = action.default if isinstance(action.default, list) else [action.default]
        text += f" (default: {' '.join(map(_written, shown))})"
    yield from textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _written(value: Any) -> str:
    """As it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
