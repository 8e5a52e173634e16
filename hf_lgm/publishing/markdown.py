"""Strangers' words in Markdown: they read as they are, and become no markup, no link, no code and no end of a fence.

What a template prints is escaped unless it is [`Markdown`] already: what is forgotten is safe.
"""

import functools
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2

# What means something in Markdown, or would end a cell of a table; an address is a link without any sign around it.
_SIGNS = re.compile(
    r"([\\`*{}\[\]<>#|~$&!]|@(?=\S*\.)|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.)",  # an underline in a word is none
    re.IGNORECASE,
)
_BEGINS_A_BLOCK = re.compile(r"^(?=[-+=])|^\d{1,9}(?=[.)](\s|$))")
# Controls, and what turns the direction of the text around it.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class Markdown(str):
    """Text that is Markdown already, and is printed as it is."""

    __slots__ = ()


def joined(between: str, parts: Iterable[Any]) -> Markdown:
    """Parts one after the other, escaped unless they are Markdown."""
    return Markdown(between.join(map(escaped, parts)))


def escaped(text: Any) -> Markdown:
    """Text that reads as it is in Markdown: on one line, without markup, in tables too."""
    if isinstance(text, Markdown):
        return text
    line = _SIGNS.sub(r"\\\1", one_line(text))
    return Markdown(_BEGINS_A_BLOCK.sub(lambda found: f"{found[0]}\\", line))


def one_line(text: Any) -> str:
    """Text on one line, of what can be seen."""
    return _UNSEEN.sub("\ufffd", " ".join(str(text).split()))


def code(text: Any) -> Markdown:
    """Text as code within a line; a cell of a table can't hold code with a bar."""
    line = one_line(text)
    if not line or "|" in line:
        return escaped(line)
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{space}{line}{space}{fence}")


def fenced(text: Any) -> Markdown:
    """Text as a block of code, whose fence is longer than any in it."""
    lines = [_UNSEEN.sub("\ufffd", line) for line in str(text).expandtabs().splitlines()]
    fence = "`" * max(3, _longest_run(str(text)) + 1)
    return Markdown("\n".join([fence, *lines, fence]))


def link(text: Any, address: Any) -> Markdown:
    """A link, where the address is one of the web; else the text alone."""
    target = web_address(address)
    return Markdown(f"[{escaped(text)}]({target.replace('&', '&amp;')})") if target else escaped(text)


def web_address(address: Any) -> str | None:
    """An address of the web, with nothing in it that could end a link; `None` for any other."""
    try:
        parts = urlsplit(str(address).strip())
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or _UNSEEN.search(str(address)):
        return None
    return quote(str(address).strip(), safe=":/?#@&=+$,;%~-._")


def python(value: Any) -> Markdown:
    """A value as a literal of Python, on one line."""
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return Markdown(repr(value))
    if isinstance(value, float) and math.isfinite(value):
        return Markdown(repr(value))
    text = str(value)
    if not text.isprintable():
        return Markdown(ascii(text))
    return Markdown('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def rendered(template: str, /, **values: Any) -> str:
    """A template of Jinja with values, all of them escaped unless they are Markdown.

    Args:
        template (`str`): With the filters `code`, `fenced` and `python`.
        values: What it prints.
    """
    return _compiled(template).render(**values)


@functools.cache
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.Environment(finalize=escaped, undefined=jinja2.StrictUndefined)
    environment.filters |= {"code": code, "fenced": fenced, "python": python}
    return environment.from_string(template)


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
