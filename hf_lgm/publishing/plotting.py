"""How plots look, and how they are written: colours that the colour-blind can tell apart, names as plain text."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's (https://jfly.uni-koeln.de/color/) but for yellow, which is faint on white. With the marks, of which
# there are ten, they tell seventy things apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
SYNTHETIC, REAL = COLOURS[3], COLOURS[0]  # wherever the two are compared
HEAT = "cividis"
FORMATS = ("png", "svg")
_LOOK: dict[Any, Any] = {
    "text.parse_math": False,  # a name may hold dollars
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "hf_lgm",  # the same plot has the same bytes
}


def check_plots() -> None:
    """Refuse to draw without matplotlib.

    Raises:
        ImportError: If it is not installed; the message says what to type.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("A plot needs matplotlib, which is not installed: pip install 'hf_lgm[plots]'.")


@contextmanager
def plot_style() -> Iterator[None]:
    """Within it, figures are made and written as ours are."""
    check_plots()
    import matplotlib  # here, since it is slow to load

    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # a name in a script without a font
        yield


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches, laid out by its content; no pyplot, so nothing global and no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write a figure beside each other as PNG and SVG; returns the files. `path` has no suffix."""
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in formats]
    for file in files:
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
        figure.set_layout_engine("none")  # once is enough
    return files


def short_label(name: str, width: int = 22) -> str:
    """A name in one line that fits: what can't be printed is left out, and a long one is cut."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
