"""YAML files of flags: each value as it is written, as on the command line."""

import difflib
import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..arguments import INSTEAD
from ..values import converted

logger = logging.getLogger(__name__)

# Former names of flags, which are understood until 0.3.
RENAMED = {"eval_protocol": "protocol"}

RECIPES = Path(str(files("hf_lgm") / "recipes"))

_NULL = "tag:yaml.org,2002:null"


def config_path(asked: str) -> Path:
    """The file that is meant: one of the user's, or else a recipe of ours by its name.

    Args:
        asked (`str`): A path, or a name such as food-101; recipes/food-101.yaml is understood too.

    Raises:
        FileNotFoundError: If there is neither.
    """
    path = Path(asked).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileNotFoundError(f"--config: '{asked}' is a folder: give the file that is in it.")
    known = {recipe.stem: recipe for recipe in sorted(RECIPES.glob("*.yaml"))}
    if path.parent.name in ("", "recipes") and path.stem in known and path.suffix in ("", ".yaml"):
        return known[path.stem]
    similar = difflib.get_close_matches(path.stem, known, 1, cutoff=0.6)
    meant = f" Did you mean {similar[0]}?" if similar else f" Recipes: {', '.join(known)}."
    raise FileNotFoundError(f"--config: there is no file '{asked}', and no recipe of this name.{meant}")


def read_config(path: Path, types: dict[str, Any], ignore_others: bool = False) -> dict[str, Any]:
    """What a YAML file says of flags, each value of its flag's type.

    Args:
        path (`Path`): The file.
        types (`dict[str, type]`): The types of all flags, by name.
        ignore_others (`bool`, *optional*, defaults to `False`): Leave out what is not among them.

    Raises:
        ValueError: If it is not a mapping of flags to values; the message names the file, and flag or line.
    """
    values: dict[str, Any] = {}
    for written, value in _load(path).items():
        name = present_name(str(written).replace("-", "_"))
        if name in values:
            raise ValueError(f"--config: {path} names {name} twice.")
        values[name] = value
    if ignore_others:
        values = {name: value for name, value in values.items() if name in types}
    unknown = sorted(set(values) - set(types))
    if advice := "; ".join(f"{name}: use {INSTEAD[name]}" for name in unknown if name in INSTEAD):
        raise ValueError(f"--config: {path} has fields that LGMConfig does not take: {advice}.")
    if unknown:
        similar = difflib.get_close_matches(unknown[0], types, 1, cutoff=0.75)
        meant = f" Did you mean {similar[0]}?" if similar else ""
        raise ValueError(
            f"--config: {path} has unknown flags: {', '.join(unknown)}.{meant} --help lists those there are."
        )
    return {name: converted(value, types[name], f"--config: {path}: {name}") for name, value in values.items()}


def present_name(name: str) -> str:
    """The present name of a flag; one that was renamed is said."""
    now = RENAMED.get(name.replace("-", "_"))
    if now is None:
        return name
    logger.warning("--%s is called --%s now; the old name goes with 0.3.", name, now)
    return now


class _AsWritten(yaml.SafeLoader):
    """Scalars as text: YAML reads `8e-2` as text too, `010` as eight, `no` as false, and a flag has its own type."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] == _NULL]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dictionary; of two equal names neither is right."""
        found: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            found.add(key.value)
        return super().construct_mapping(node, deep)


def _load(path: Path) -> dict[Any, Any]:
    try:
        values = yaml.load(path.read_bytes(), _AsWritten)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"--config: {path}{line} is not YAML of flags: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ValueError(f"--config: {path} is not YAML: {reason}.") from error
    if values is not None and not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "one value"
        raise ValueError(f"--config: {path} must hold flags, as in 'max_steps: 300', found {kind}.")
    return values or {}
