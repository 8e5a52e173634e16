"""The card of a set, rendered from its own two JSON files: what it is, what it is worth, how it was made."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from huggingface_hub import CardData, DatasetCardData, EvalResult, ModelCardData

from ..demo import DEMO_DATASET, DEMO_MODELS
from ..settings import Initialization, Objective
from .licenses import on_card
from .markdown import Markdown, code, escaped, joined, link, one_line, python, rendered, web_address
from .provenance import backbones_of, beginning_of, is_hub_id, made_through
from .results import CLASS_MEAN, better_real_images, percent, top1_rows

_TEMPLATES = files("hf_lgm.publishing") / "templates"

PAPER = "https://arxiv.org/abs/2511.16674"

# Points of top-1 that the nearest class mean may be ahead without being mentioned.
_FAR = 5.0


def render_set_card(
    config: dict[str, Any], results: Sequence[dict[str, Any]], repo_id: str, shows_comparison: bool = False
) -> str:
    """The README of a set, with the metadata that `load_dataset` and the Hub read.

    Args:
        config (`dict`): What `lgm_config.json` holds. All but its `dataset_info` may be missing.
        results (`Sequence[dict]`): What `results.json` holds; may be empty.
        repo_id (`str`): What it is loaded by: `user/name`, or a folder.
        shows_comparison (`bool`, *optional*, defaults to `False`): Whether `comparison.png` lies beside the card.
    """
    info, source, backbone = config["dataset_info"], config.get("source", {}), config.get("backbone", {})
    columns = [feature["name"] for feature in info["features"]]
    num_real = info.get("num_real_images", info["num_examples"] if "source_index" in columns else 0)
    is_real, has_images = num_real == info["num_examples"], "image" in columns
    lacks_images = info.get("num_without_image", 0) > 0
    name = source.get("name") or source.get("dataset", "unknown dataset")
    verb, models = "chosen" if is_real else "distilled", made_through(config)
    through = " and ".join(models) or "an unknown backbone"
    per_class, own = info["num_examples"] // info["num_classes"], config.get("training_set", "distilled")
    return _card(
        "dataset_card.md",
        _set_metadata(info, source, f"{name}, {verb} through {through}", is_real),
        repo_id=repo_id,
        source=name,
        through=through,
        num_images=f"{info['num_examples']:,}",
        num_classes=f"{info['num_classes']:,}",
        per_class=per_class,
        columns=columns,
        is_real=is_real,
        real_per_class=num_real // info["num_classes"],
        has_images=has_images,
        lacks_images=lacks_images,
        shows_comparison=shows_comparison,
        kind=config.get("baseline", {}).get("kind", ""),
        own_objective=_own_objective(config),
        code=_snippet(source, backbone, lacks_images),
        warnings=_warnings(results, own, per_class, is_real),
        tables=[result_table(results, metric, own) for metric in dict.fromkeys(row["metric"] for row in results)],
        license=license_sentence(source),
        citations=citations([*models, *methods(config), source.get("dataset", ""), name]),
        paper=Markdown(PAPER),
        **how_it_was_made(config),
    )


def render_probe_card(config: dict[str, Any], results: Sequence[dict[str, Any]], repo_id: str) -> str:
    """The README of a probe, with the metadata of a Hub model.

    Args:
        config (`dict`): What `lgm_config.json` holds, see [`ProbeModel`].
        results (`Sequence[dict]`): What `results.json` holds; of the probes trained alike.
        repo_id (`str`): What it is loaded by: `user/name`, or a folder.
    """
    source, backbone, is_native = config.get("source", {}), config["backbone"], config["is_native"]
    name = source.get("name") or source.get("dataset", "unknown dataset")
    top1 = next((row for row in results if row["metric"] == "top-1"), None)
    license_ = on_card(config.get("license"))
    data = ModelCardData(
        license=license_["license"],
        license_name=license_.get("license_name"),
        library_name="transformers" if is_native else "hf_lgm",
        pipeline_tag="image-classification",
        base_model=backbone["name"] if is_hub_id(backbone["name"]) else None,
        datasets=[source["dataset"]] if is_hub_id(source.get("dataset", "")) else None,
        tags=["hf_lgm", "linear-probe", "linear-gradient-matching", "dataset-distillation"],
        model_name=Path(repo_id).name,
        eval_results=[_eval_result(top1, source, name)] if top1 else None,
    )
    return _card(
        "probe_card.md",
        data,
        repo_id=repo_id,
        is_native=is_native,
        source=name,
        through=backbone["name"],
        real_per_class=config.get("settings", {}).get("real_images_per_class", 0),
        dim=backbone["feature_size"],
        num_images=f"{config['num_images']:,}",
        num_classes=f"{len(config['class_names']):,}",
        top1=percent(top1) if top1 else None,
        num_seeds=top1["n_seeds"] if top1 else 0,
        protocol=config["probe"].removeprefix("probe: "),
        license=config.get("license") or "unknown, its repository declares none",
        citations=citations([backbone["name"], *methods(config), source.get("dataset", ""), name]),
        **how_it_was_made(config),
    )


def render_demo_backbone_card(config: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """The README of a backbone of the demo.

    Args:
        config (`dict`): `name`, `architecture`, `parameters`, `side`, `images`, `eval_images`, `steps`, `seed`, and
            the weights' `sha256`.
        results (`Sequence[dict]`): Of a probe on all real images.
    """
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        tags=["hf_lgm", "simclr", "digits"],
    )
    return _card("demo_backbone_card.md", data, top1=results[0]["mean"], **config)


def _set_metadata(info: dict[str, Any], source: dict[str, Any], title: str, is_real: bool) -> DatasetCardData:
    made = [] if is_real else ["synthetic"]
    license_ = on_card(source.get("license"))
    split = {"name": "train", "num_bytes": info["num_bytes"], "num_examples": info["num_examples"]}
    return DatasetCardData(
        pretty_name=one_line(title),
        license=license_["license"],
        license_name=one_line(source.get("license_name") or license_.get("license_name") or "") or None,
        license_link=web_address(source.get("license_link")),
        task_categories=["image-classification"],
        size_categories=[_size_category(info["num_examples"])],
        annotations_creators=None if is_real else ["machine-generated"],
        source_datasets=[source["dataset"]] if is_hub_id(source.get("dataset", "")) else None,
        tags=["dataset-distillation", "linear-gradient-matching", "hf_lgm", *made],
        dataset_info={
            "features": info["features"],
            "splits": [split],
            "download_size": info["download_size"],
            "dataset_size": info["num_bytes"],
        },
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )


def _card(name: str, data: CardData, /, **values: Any) -> str:
    """A template with its metadata and values, with an end of its last line."""
    text = rendered((_TEMPLATES / name).read_text(encoding="utf-8"), **values)
    return f"---\n{data.to_yaml()}\n---\n{text.rstrip()}\n"


def _eval_result(row: dict[str, Any], source: dict[str, Any], name: str) -> EvalResult:
    return EvalResult(
        task_type="image-classification",
        dataset_type=one_line(source.get("dataset", name)),
        dataset_name=one_line(name),
        dataset_split=source.get("eval_split") and one_line(source["eval_split"]),
        metric_type="accuracy",
        metric_name=f"top-1, mean of {row['n_seeds']} probes trained alike",
        metric_value=row["mean"],
    )


def _snippet(source: dict[str, Any], backbone: dict[str, Any], lacks_images: bool) -> dict[str, Any]:
    """What the code on a set's card differs by; the code itself stands in the template."""
    columns = [f"{key}={python(source[key])}" for key in ("image_column_name", "label_column_name") if source.get(key)]
    columns += ["classes=distilled.class_names"] if source.get("has_selected_classes") else []
    dataset, (model, _, side) = source.get("dataset", "DATASET"), backbone.get("name", "BACKBONE").partition("@")
    side = int(side) if side.isdecimal() else None
    names = [
        "DistilledSet",
        *(["FrozenBackbone"] if side else []),
        *(["LabelledImages"] if columns or lacks_images else []),
    ]
    return {
        "imports": Markdown(", ".join([*names, "evaluate_probe"])),
        "is_demo": dataset == DEMO_DATASET,
        "dataset": dataset,
        "train_split": source.get("split") or "train",
        "revision": source.get("revision") if is_hub_id(dataset) else None,
        "dataset_is_folder": not is_hub_id(dataset),
        "config": source.get("config"),
        "split": source.get("eval_split") or source.get("split") or "test",
        "columns": Markdown(", ".join(columns)),
        "model": model,
        "model_is_folder": not (is_hub_id(model) or model in DEMO_MODELS),
        "side": side,
        "ratio": backbone.get("resize_ratio", 1.0),
    }


def _warnings(results: Sequence[dict[str, Any]], own: str, per_class: int, is_real: bool) -> list[Markdown]:
    """What a reader has to know before using the set."""
    if is_real:
        return []
    found = [
        f"Through {escaped(name)} as many {kind} are worth more, {best:.1f} against {mean:.1f} %: use those there."
        for name, (kind, best, mean) in better_real_images(results, own, per_class).items()
    ]
    means = top1_rows(results, CLASS_MEAN)
    ahead = {name: means[name]["mean"] - row["mean"] for name, row in top1_rows(results, own).items() if name in means}
    far = [f"{gap:.1f} points through {escaped(name)}" for name, gap in ahead.items() if gap > _FAR]
    if far:
        found.append(
            f"The nearest class mean of all real images is ahead of them, by {', '.join(far)}: where the means can be "
            "had, they are the better summary."
        )
    return list(map(Markdown, found))


def _size_category(rows: int) -> str:
    limits = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for limit, name in limits.items() if rows < limit), "1M<n<10M")


def result_table(results: Sequence[dict[str, Any]], metric: str, own: str) -> dict[str, Any]:
    """One metric as a table: training sets × backbones, its head and its lines; one row in bold."""
    rows = [row for row in results if row["metric"] == metric]
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row["training_set"], {})[row["backbone"]] = percent(row)
    lines = []
    for name, found in cells.items():
        line = [escaped(name), *(found.get(backbone, "") for backbone in backbones)]
        shown = [f"**{cell}**" if cell.strip() else cell for cell in line] if name == own else line
        lines.append(Markdown(" | ".join(shown)))
    return {"metric": metric.capitalize(), "head": joined(" | ", backbones), "width": len(backbones), "lines": lines}


def how_it_was_made(config: dict[str, Any]) -> dict[str, Any]:
    """What the templates say of a run: `command`, `facts`, and what the images began as."""
    source, run = config.get("source", {}), config.get("run", {})
    settings = config.get("settings", {})
    changed = {name: settings[name] for name in config.get("changed_settings", settings) if name in settings}
    facts = {
        "real images": _linked(source.get("dataset"), "datasets/", source.get("revision"), source.get("num_images")),
        "backbone": joined("; ", map(_described, backbones_of(config))),
        "other than the defaults": joined(", ", (code(f"{name}={_value(value)}") for name, value in changed.items())),
        "seed": settings.get("seed", config.get("baseline", {}).get("seed")),
        "run": _run(run) if run else "",
        "versions": joined(", ", (f"{name} {version}" for name, version in config.get("versions", {}).items())),
    }
    shown = {name: value for name, value in facts.items() if value not in (None, "")}
    began_as = beginning_of(config, is_real=False) if "init" in settings else "noise"
    return {
        "command": config.get("command"),
        "facts": shown,
        "init": settings.get("init", "noise"),
        "began_as": began_as,
        "init_weight": settings.get("init_weight", 0),
        "began_with_set": settings.get("init", "noise") not in get_args(Initialization),
    }


def _run(run: dict[str, Any]) -> Markdown:
    """What was done, in a line."""
    done = f"{run['steps']} steps in {run['seconds']:.0f} s on {run['processes']} {run['device']} process(es)"
    changed = joined(", ", run.get("length_changed_at", []))
    return Markdown(escaped(done) + (f"; `max_steps` was changed at step {changed}" if changed else ""))


def license_sentence(source: dict[str, Any]) -> Markdown:
    """Under which terms the images may be used, as far as it is known."""
    if not source.get("license"):
        return Markdown("Unknown: nothing that was used says under which licence the real images are.")
    name = link(source.get("license_name") or str(source["license"]), source.get("license_link"))
    declared = ", declared by the source repository, not verified" if source.get("license_declared_by") else ""
    return Markdown(f"That of the real images: {name}{declared}.")


def _own_objective(config: dict[str, Any]) -> str:
    """The name of a function that is none of our objectives; empty where it is one of them."""
    name = config.get("settings", {}).get("objective")
    return "" if name is None or name in get_args(Objective) else str(name)


def methods(config: dict[str, Any]) -> list[str]:
    """The settings that are somebody's work, as `citations` knows them."""
    settings = config.get("settings", {})
    named = [f"parameterization={settings['parameterization']}"] if "parameterization" in settings else []
    if "objective" in settings and not _own_objective(config):
        named.append(f"objective={settings['objective']}")
    is_sfm = settings.get("objective") == "lgm" and settings.get("probe_std") == 0
    return [*named, *(["probe_std=0"] if is_sfm else [])]


def citations(names: Sequence[str]) -> Markdown:
    """BibTeX of the paper, and of those methods, backbones and datasets whose names we know."""
    text = (_TEMPLATES / "citations.yaml").read_text(encoding="utf-8")
    known: list[dict[str, Any]] = yaml.safe_load(text)
    said = " ".join(names).lower()
    found = [entry["bibtex"].strip() for entry in known if any(word in said for word in entry.get("names", [""]))]
    return Markdown("\n\n".join(found))


def _described(backbone: dict[str, Any]) -> Markdown:
    """A backbone in one line: its link, class, features and input."""
    size = backbone.get("image_size")
    parts = [
        _linked(backbone.get("name"), "", backbone.get("revision")),
        *([backbone["architecture"]] if "architecture" in backbone else []),
        *([f"{backbone['pooling']} features", f"{size} x {size} pixels"] if size else []),
    ]
    return joined(", ", parts)


def _linked(name: str | None, kind: str, revision: str | None, num_images: int | None = None) -> Markdown:
    if not name:
        return Markdown("")
    repo_id = name.partition("@")[0]
    text = link(name, f"https://huggingface.co/{kind}{repo_id}") if is_hub_id(repo_id) else escaped(name)
    images = f", {num_images:,} of them" if num_images else ""
    return Markdown(f"{text}{f' at {code(revision[:12])}' if revision else ''}{images}")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
