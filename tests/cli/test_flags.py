"""Every flag through the three doors: the command line, YAML and Python, alone and in pairs."""

import dataclasses
from typing import Literal, get_args, get_origin

import pytest
import yaml

from hf_lgm import LGMConfig
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.analyze import AnalyzeArguments
from hf_lgm.cli.arguments import DataArguments, LoadingArguments, ModelArguments, ReadingArguments
from hf_lgm.cli.baselines import BaselineArguments
from hf_lgm.cli.distill import RunArguments
from hf_lgm.cli.evaluate import EvaluateArguments
from hf_lgm.cli.gallery import GalleryArguments
from hf_lgm.cli.parsing import parse_arguments
from hf_lgm.cli.publish import PublishArguments
from hf_lgm.values import types_of

COMMANDS = {
    "distill": (ModelArguments, DataArguments, LGMArguments, RunArguments),
    "baselines": (ModelArguments, DataArguments, LoadingArguments, BaselineArguments),
    "evaluate": (ModelArguments, DataArguments, LoadingArguments, EvaluateArguments),
    "analyze": (ModelArguments, DataArguments, LoadingArguments, AnalyzeArguments),
    "gallery": (ModelArguments, DataArguments, ReadingArguments, GalleryArguments),
    "publish": (PublishArguments,),
}
# What a command can't do without, and what a flag can't be without.
NEEDED = {
    "evaluate": {"sets": ["a"]},
    "analyze": {"sets": ["a"]},
    "gallery": {"sets": ["a"]},
    "publish": {"folder": "a", "repo_id": "user/name"},
}
WITH = {
    "vae": {"parameterization": "latent"},
    "parameterization": {"vae": "user/vae"},
    "push_to_hub": {"hub_dataset_id": "user/name"},
    "license_name": {"license": "other"},
    "license_link": {"license": "other"},
    "label_learning_rate": {"objective": "ridge"},
    "real_features": {"objective": "lgm"},
    "real_images_per_class": {"images_per_class": 3},
}
SPECIAL = {
    "growth_share": 0.5,
    "crop_scale": [0.08, 0.5],  # typed as 8e-2 below
    "model": ["user/net", "demo-vit@64"],
    "eval_models": ["user/net@64"],
    "eval_strategy": "steps",
    "save_strategy": "no",
    "init": "random",
    "lr_scheduler_type": "cosine",
    "channels": 3,
    "parameterization": "latent",
    "license": "cc-by-4.0",
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "hub_dataset_id": "user/name",
    "repo_id": "user/name",
    "report_to": ["tensorboard"],
    "resume_from_checkpoint": "auto",
    "ddp_backend": "gloo",
}
# Fields whose effects meet those of others in Transformers' own arguments.
PARTNERS = {
    "use_cpu": True,
    "bf16": False,
    "eval_strategy": "steps",
    "report_to": ["tensorboard"],
    "resume_from_checkpoint": "auto",
}


def other_value(name, kind, default):
    """A valid value that is not the default."""
    if name in SPECIAL:
        return SPECIAL[name]
    options = [option for option in get_args(kind) or (kind,) if option is not type(None)]
    if get_origin(kind) is Literal or get_origin(options[0]) is Literal:
        choices = get_args(kind if get_origin(kind) is Literal else options[0])
        return next(choice for choice in choices if choice != default)
    if get_origin(kind) is list or get_origin(options[0]) is list:
        inner = get_args(kind if get_origin(kind) is list else options[0])[0]
        return {str: ["some", "words"], float: [0.25, 0.5, 0.75]}[inner]
    return {
        bool: lambda: not default,
        int: lambda: (default or 1) + 1,
        float: lambda: (default or 1) * 2,
        str: lambda: "word",
    }[options[0]]()


def defaults_of(kind):
    return {
        of.name: of.default if of.default_factory is dataclasses.MISSING else of.default_factory()
        for of in dataclasses.fields(kind)
    }


FIELDS = [
    pytest.param(command, kind, name, id=f"{command}-{name}")
    for command, kinds in COMMANDS.items()
    for kind in kinds
    for name in types_of(kind)
]


def typed(values):
    """As a user types flags; small numbers in the notation that YAML reads as text."""
    flags = []
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(f"{one:e}" if isinstance(one, float) else str(one) for one in each)]
    return flags


def as_yaml(values):
    """The same, as a user types YAML."""
    lines = []
    for name, value in values.items():
        each = [f"{one:.0e}" if one == 0.08 else str(one) for one in (value if isinstance(value, list) else [value])]
        lines.append(f"{name}: [{', '.join(each)}]" if isinstance(value, list) else f"{name}: {each[0]}")
    return "\n".join(lines)


def parsed(command, argv, name):
    """The value that a field has, and the object that it is a field of."""
    for each in parse_arguments(COMMANDS[command], "", argv):
        if name in types_of(type(each)):
            return getattr(each, name), each
    raise AssertionError(name)


@pytest.mark.parametrize(("command", "kind", "name"), FIELDS)
def test_a_flag_alone_through_all_doors(command, kind, name, tmp_path):
    value = other_value(name, types_of(kind)[name], defaults_of(kind)[name])
    value = "user/net" if (command, name) == ("publish", "model") else value  # one, not a list
    assert value != defaults_of(kind)[name]
    values = {**NEEDED.get(command, {}), **WITH.get(name, {}), name: value}
    from_flags, _ = parsed(command, typed(values), name)
    (tmp_path / "flags.yaml").write_text(as_yaml(values))
    from_yaml, _ = parsed(command, ["--config", str(tmp_path / "flags.yaml")], name)
    (tmp_path / "dumped.yaml").write_text(yaml.safe_dump(values))
    from_dump, _ = parsed(command, ["--config", str(tmp_path / "dumped.yaml")], name)
    assert from_flags == from_yaml == from_dump == value
    assert type(from_flags) is type(from_yaml) is type(from_dump)


@pytest.mark.parametrize("name", types_of(LGMArguments))
@pytest.mark.parametrize("partner", [None, *PARTNERS])
def test_a_setting_alone_and_in_pairs(name, partner):
    """From flags to the configuration of a run, and on to that of another run."""
    pair = {**({partner: PARTNERS[partner]} if partner else {}), **WITH.get(name, {})}
    value = other_value(name, types_of(LGMArguments)[name], defaults_of(LGMArguments)[name])
    if name == "bf16":
        value, pair = False, {**pair, "use_cpu": True}
    pair[name] = value
    _, given = parsed("distill", typed(pair), name)
    direct, through_flags = LGMConfig(**pair), LGMConfig(**vars(given))
    assert getattr(direct, name) == getattr(through_flags, name) == value
    again = dataclasses.replace(direct, seed=direct.seed)
    assert again == direct
    own = {of: getattr(direct, of) for of in types_of(LGMArguments) if of != "output_dir"}
    assert own == {of: getattr(through_flags, of) for of in own}
    assert all(getattr(direct, of) == wanted for of, wanted in pair.items())
    for run in (
        LGMConfig(**vars(dataclasses.replace(given, init="random"))),
        dataclasses.replace(direct, init="random"),
    ):
        assert run.init == "random" and (name == "init" or getattr(run, name) == value)


WRONG = {
    ("--max_steps", "ten"): "--max_steps must be a whole number, found 'ten'.",
    ("--max_steps", "10.5"): "--max_steps must be a whole number, found '10.5'.",
    ("--max_steps", "inf"): "--max_steps must be a whole number, found 'inf'.",
    ("--learning_rate", "nan"): "--learning_rate must be a number, found 'nan'.",
    ("--crop_scale", "0.1", "inf"): "--crop_scale must be a number, found 'inf'.",
    ("--flip", "maybe"): "--flip must be true or false, found 'maybe'.",
    ("--channels", "2"): "--channels must be one of auto, 1, 3, found '2'.",
    ("--objective", "mse"): "--objective must be one of lgm, ridge, found 'mse'.",
    ("--feature_pooling", "max"): "--feature_pooling must be one of cls, pooler, mean, gap, projection, found 'max'.",
    ("--max_steps",): "--max_steps: expected one argument",
    ("--per_device_eval_batch_size", "0"): "per_device_eval_batch_size must be at least 1, found 0.",
    ("--dataloader_num_workers", "-2"): "dataloader_num_workers must be at least -1, found -2.",
    ("--save_steps", "0"): "save_steps must be more than 0, found 0.",
    ("--save_steps", "-3"): "save_steps must be more than 0, found -3.",
    ("--logging_steps", "2.5"): "logging_steps must be a whole number, or a share of the run below 1, found 2.5.",
    ("--eval_seeds", "0"): "eval_seeds must be at least 1, found 0.",
    ("--eval_learning_rate", "0"): "eval_learning_rate must be more than 0, found 0.",
    ("--adam_beta1", "1"): "adam_beta1 must be at least 0 and below 1, found 1.",
    ("--seed", "-1"): "seed can't be negative, found -1.",
    ("--image_size", "0"): "image_size must be at least 1, found 0.",
    ("--resize_ratio", "0"): "resize_ratio must be at least 1, found 0.",
    ("--image_std", "0.5", "0", "0.5"): "image_std must be more than 0, found 0.",
    ("--max_train_samples", "0"): "max_train_samples must be at least 1, found 0.",
    ("--license", "CC BY 4.0"): "license='CC BY 4.0' is no identifier of the Hub's: use cc-by-4.0, or other with",
    ("--hub_dataset_id", "set"): "Expected a repository 'user/name', found 'set'.",
    ("--hub_dataset_id", "a/b c"): "'a/b c' can't be the name of a repository: ",
    ("--num_gpus", "0"): "num_gpus must be at least 1, found 0.",
    ("--model", "user/net@main"): "--model takes NAME@SIDE, as in demo-vit@64, found 'user/net@main'; a branch",
    ("--eval_models", "user/net@0"): "--eval_models takes NAME@SIDE, as in demo-vit@64, found 'user/net@0'; a branch",
}


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_what_can_not_be_is_one_sentence(flags):
    with pytest.raises(ValueError) as caught:
        parse_arguments(COMMANDS["distill"], "", flags)
    assert str(caught.value).startswith(WRONG[flags]) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": "ten"}, "max_steps must be a whole number, found 'ten'."),
        ({"max_steps": True}, "max_steps must be a whole number, found True."),
        ({"max_steps": None}, "max_steps needs a value; leave it out for its default."),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, found nan."),
        ({"crop_scale": [0.1, [1]]}, "crop_scale must be a number, found a list."),
        ({"channels": 2}, "channels must be one of auto, 1, 3, found 2."),
        ({"channels": True}, "channels must be one of auto, 1, 3, found True."),
        ({"channels": [1]}, "channels must be one of auto, 1, 3, found a list."),
        ({"init": {"a": 1}}, "init must be text, found a mapping of names to values."),
        ({"flip": 2}, "flip must be true or false, found 2."),
        ({"max_steps": "9" * 5000}, "max_steps must be a whole number, found a long text."),
    ],
)
def test_wrong_types_in_python(settings, message):
    with pytest.raises(ValueError) as caught:
        LGMConfig(**settings)
    assert str(caught.value) == message


def test_numbers_of_other_kinds_in_python(tmp_path):
    given = {"max_steps": 10.0, "learning_rate": "8e-2", "crop_scale": (0.5, 1), "output_dir": tmp_path, "run_name": 5}
    args = LGMConfig(**given, save_total_limit=None, chunk_size="1e1", resume_from_checkpoint=True)
    assert (args.max_steps, args.learning_rate, args.crop_scale, args.chunk_size) == (10, 0.08, [0.5, 1.0], 10)
    assert (args.output_dir, args.run_name, args.save_total_limit) == (str(tmp_path), "5", None)
    assert LGMConfig(channels="1").channels == 1 and LGMConfig(channels=3).channels == 3
    assert args.resume_from_checkpoint == "auto" and type(args.max_steps) is int
