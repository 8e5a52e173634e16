"""Values of settings as their types ask, whether a flag, a line of YAML or Python gives them; free of torch."""

import functools
import math
import numbers
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "f", "n", "0"), False),
}


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {of.name: hints[of.name] for of in fields(kind)}


def convert_fields(settings: object, kind: type) -> None:
    """Make the fields that a dataclass `kind` declares what their types ask.

    Raises:
        ValueError: If one can't be that; the message names it.
    """
    for name, wanted in types_of(kind).items():
        setattr(settings, name, converted(getattr(settings, name), wanted, name))


def converted(value: Any, kind: Any, name: str) -> Any:
    """A value as its type asks: words for numbers are numbers, and one value is a list of one.

    Args:
        value (`Any`): Text, as flags and YAML have it, or what Python gives.
        kind (`type`): `str`, `int`, `float`, `bool`, a `Literal`, a list of one of these, or one of these or `None`.
        name (`str`): What messages call it.

    Raises:
        ValueError: If it can't be that.
    """
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if value is None:
        if type(None) in options:
            return None
        raise ValueError(f"{name} needs a value; leave it out for its default.")
    wanted = next(option for option in options if option is not type(None))
    if get_origin(wanted) is Literal:
        known = {str(option): option for option in get_args(wanted)}  # a number as a flag has it is a word
        if not isinstance(value, (str, numbers.Integral)) or str(value) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, found {shown(value)}.")
        return known[str(value)]
    if isinstance(get_origin(wanted), type) and issubclass(get_origin(wanted), Sequence):
        each = value if isinstance(value, (list, tuple)) else [value]
        return [converted(one, get_args(wanted)[0], name) for one in each]
    said, convert = _SCALARS[wanted]
    try:
        return convert(value)
    except (ValueError, TypeError, OverflowError, KeyError):
        raise ValueError(f"{name} must be {said}, found {shown(value)}.") from None


def check_at_least(settings: object, least: float, *names: str) -> None:
    """Refuse what is smaller, where it is given.

    Raises:
        ValueError: If one of these is.
    """
    for name in names:
        for value in _numbers(getattr(settings, name)):
            if value < least:
                wanted = f"must be at least {least:g}" if least else "can't be negative"
                raise ValueError(f"{name} {wanted}, found {value:g}.")


def check_positive(settings: object, *names: str) -> None:
    """Refuse zero and less, where something is given.

    Raises:
        ValueError: If one of these is.
    """
    for name in names:
        for value in _numbers(getattr(settings, name)):
            if value <= 0:
                raise ValueError(f"{name} must be more than 0, found {value:g}.")


def _numbers(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _text(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _number(value: Any) -> float:
    number = float(_scalar(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole_number(value: Any) -> int:
    value = _scalar(value)
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = float(value)  # 1e3, 10.0
    if value != int(value) or abs(value) >= 2**53:
        raise ValueError
    return int(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
        raise TypeError
    return value


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]


def shown(value: Any) -> str:
    """What was found, in a few words, however large it is."""
    if isinstance(value, (str, bool, int, float)) and len(str(value)) <= 100:
        return repr(value)
    kinds: dict[type, str] = {
        dict: "a mapping of names to values",
        list: "a list",
        tuple: "a list",
        str: "a long text",
        type(None): "nothing",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


_SCALARS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("text", _text),
    int: ("a whole number", _whole_number),
    float: ("a number", _number),
    bool: ("true or false", _boolean),
}
