"""Pieces that the cards of sets and of probes are put together from."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from .provenance import backbones_of, is_hub_id

_TEMPLATES = files("hf_lgm") / "templates"


def template(name: str) -> Path:
    """The path of a template of this package."""
    return Path(str(_TEMPLATES / name))


def plain(text: str) -> str:
    """Text that reads as it is in Markdown: on one line, without markup, in tables too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", " ".join(str(text).split()))


def result_table(results: Sequence[dict[str, Any]], metric: str, own: str) -> dict[str, Any]:
    """One metric as a table: training sets × backbones, with the words of its head and its cells; one row in bold."""
    rows = [row for row in results if row["metric"] == metric]
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        spread = f" ± {row['std']:.1f}" if row["n_seeds"] > 1 else ""
        cells.setdefault(row["training_set"], {})[row["backbone"]] = f"{row['mean']:.1f}{spread}"
    lines = []
    for name, found in cells.items():
        line = [plain(name), *(found.get(backbone, "") for backbone in backbones)]
        lines.append([f"**{cell}**" if cell.strip() else cell for cell in line] if name == own else line)
    return {"metric": metric, "backbones": [plain(backbone) for backbone in backbones], "lines": lines}


def how_it_was_made(config: dict[str, Any]) -> dict[str, Any]:
    """What the templates say of a run: `command`, `facts` and `init`."""
    source, run = config.get("source", {}), config.get("run", {})
    settings = config.get("settings", {})
    changed = {name: settings[name] for name in config.get("changed_settings", settings) if name in settings}
    facts = {
        "real images": _linked(source.get("dataset"), "datasets/", source.get("revision"), source.get("num_images")),
        "backbone": "; ".join(map(_described, backbones_of(config))),
        "other than the defaults": ", ".join(f"`{name}={_value(value)}`" for name, value in changed.items()),
        "seed": settings.get("seed", config.get("baseline", {}).get("seed")),
        "run": f"{run['steps']} steps in {run['seconds']:.0f} s on {run['processes']} {run['device']} process(es)"
        if run
        else "",
        "versions": ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items()),
    }
    shown = {name: value for name, value in facts.items() if value not in (None, "")}
    return {"command": config.get("command"), "facts": shown, "init": settings.get("init", "noise")}


def license_sentence(source: dict[str, Any]) -> str:
    """Under which terms the images may be used, as far as it is known."""
    if not source.get("license"):
        return "Unknown: nothing that was used says under which licence the real images are."
    name = source.get("license_name") or source["license"]
    text = f"[{plain(name)}]({source['license_link']})" if source.get("license_link") else plain(name)
    declared = ", declared by the source repository, not verified" if source.get("license_declared_by") else ""
    return f"That of the real images: {text}{declared}."


def methods(config: dict[str, Any]) -> list[str]:
    """The settings that are somebody's work, as `citations` knows them."""
    settings = config.get("settings", {})
    named = [f"{name}={settings[name]}" for name in ("objective", "parameterization") if name in settings]
    is_sfm = settings.get("objective") == "lgm" and settings.get("probe_std") == 0
    return [*named, *(["probe_std=0"] if is_sfm else [])]


def citations(names: Sequence[str]) -> list[str]:
    """BibTeX of the paper, and of those methods, backbones and datasets whose names we know."""
    known: list[dict[str, Any]] = yaml.safe_load(template("citations.yaml").read_text(encoding="utf-8"))
    said = " ".join(names).lower()
    return [entry["bibtex"].strip() for entry in known if any(word in said for word in entry.get("names", [""]))]


def _described(backbone: dict[str, Any]) -> str:
    """A backbone in one line: its link, class, features and input."""
    size = backbone.get("image_size")
    return (
        _linked(backbone.get("name"), "", backbone.get("revision"))
        + (f", {backbone['architecture']}" if "architecture" in backbone else "")
        + (f", {backbone['pooling']} features, {size} x {size} pixels" if size else "")
    )


def _linked(name: str | None, kind: str, revision: str | None, num_images: int | None = None) -> str:
    if not name:
        return ""
    text = f"[{plain(name)}](https://huggingface.co/{kind}{name})" if is_hub_id(name) else plain(name)
    images = f", {num_images:,} of them" if num_images else ""
    return f"{text}{f' at `{revision[:12]}`' if revision else ''}{images}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
