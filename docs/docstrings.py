"""Docstrings in Hugging Face's form as mkdocstrings reads them: its Google style, and links between public names."""

import ast
import re
from pathlib import Path
from typing import Any

import griffe

_PACKAGE = Path(__file__).parents[1] / "hf_lgm" / "__init__.py"
_ARGUMENT = re.compile(r"^(    \w+) \((.*?)\): ", flags=re.MULTILINE)
_REFERENCE = re.compile(r"\[`~?([\w.]+)`\]")


def public_places() -> dict[str, str]:
    """Where each public name is defined, read without importing anything: `LGMConfig` is `hf_lgm.config.LGMConfig`."""
    for node in ast.parse(_PACKAGE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PLACES":
            return {name: f"hf_lgm.{place}.{name}" for name, place in ast.literal_eval(node.value).items()}
    raise ValueError(f"{_PACKAGE} has no _PLACES: expected where each public name is.")


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed.

    Of ``name (`type`, *optional*, defaults to `x`): text`` the type and the default are shown plainly; a name in
    brackets becomes a link if it has a place in the reference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places = public_places() | {"LGMArguments": "hf_lgm.arguments.LGMArguments"}

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called with each class, function and attribute that was found."""
        if obj.docstring:
            obj.docstring.value = self.rewritten(obj.docstring.value)

    def rewritten(self, text: str) -> str:
        """A docstring in Google's form."""
        text = _ARGUMENT.sub(lambda found: f"{found[1]} ({_plain(found[2])}): ", text)
        return _REFERENCE.sub(self._link, text)

    def _link(self, found: re.Match) -> str:
        name = found[1].rpartition(".")[2]
        of = found[1].rpartition(".")[0].rpartition(".")[2]  # the class of a method
        if name in self.places:
            return f"[`{name}`][{self.places[name]}]"
        if of in self.places:
            return f"[`{of}.{name}`][{self.places[of]}.{name}]"
        return f"`{name}`"


def _plain(kind: str) -> str:
    """The type of an argument, without marks; its default is in the signature."""
    kind = re.sub(r",? ?\*optional\*.*", ", optional", kind)
    return _REFERENCE.sub(r"\1", kind).replace("`", "")
