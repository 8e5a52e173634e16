"""The card of a set, rendered from its own two JSON files: what it is, what it is worth, how it was made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData, RepoCard

from .card_pieces import citations, how_it_was_made, license_sentence, methods, plain, result_table, template
from .demo import DEMO_DATASET, DEMO_MODELS
from .provenance import is_hub_id, made_through
from .results import CLASS_MEAN, top1_rows, worse_than_random

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
    is_real, has_images = "source_index" in columns, "image" in columns
    name = source.get("name") or source.get("dataset", "unknown dataset")
    verb, models = "chosen" if is_real else "distilled", made_through(config)
    through = " and ".join(models) or "an unknown backbone"
    per_class, own = info["num_examples"] // info["num_classes"], config.get("training_set", "distilled")
    card = DatasetCard.from_template(
        _set_metadata(info, source, f"{name}, {verb} through {through}", is_real),
        template_path=str(template("dataset_card.md")),
        repo_id=repo_id,
        source=plain(name),
        through=plain(through),
        num_images=f"{info['num_examples']:,}",
        num_classes=f"{info['num_classes']:,}",
        per_class=per_class,
        columns=columns,
        is_real=is_real,
        has_images=has_images,
        shows_comparison=shows_comparison,
        kind=config.get("baseline", {}).get("kind", ""),
        snippet=_snippet(repo_id, source, backbone),
        warnings=_warnings(results, own, per_class, is_real),
        tables=[result_table(results, metric, own) for metric in dict.fromkeys(row["metric"] for row in results)],
        license=license_sentence(source),
        citations=citations([*models, *methods(config), source.get("dataset", ""), name]),
        paper=PAPER,
        **how_it_was_made(config),
    )
    return _ended(card)


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
    data = ModelCardData(
        license=config.get("license") or "unknown",
        library_name="transformers" if is_native else "hf_lgm",
        pipeline_tag="image-classification",
        base_model=backbone["name"] if is_hub_id(backbone["name"]) else None,
        datasets=[source["dataset"]] if is_hub_id(source.get("dataset", "")) else None,
        tags=["hf_lgm", "linear-probe", "linear-gradient-matching", "dataset-distillation"],
        model_name=Path(repo_id).name,
        eval_results=[_eval_result(top1, source, name)] if top1 else None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(template("probe_card.md")),
        repo_id=repo_id,
        is_native=is_native,
        source=plain(name),
        through=plain(backbone["name"]),
        dim=backbone["feature_size"],
        num_images=f"{config['num_images']:,}",
        num_classes=f"{len(config['class_names']):,}",
        top1=f"{top1['mean']:.1f} ± {top1['std']:.1f}" if top1 else None,
        num_seeds=top1["n_seeds"] if top1 else 0,
        protocol=config["probe"].removeprefix("probe: "),
        license=plain(config.get("license") or "unknown, its repository declares none"),
        citations=citations([backbone["name"], *methods(config), source.get("dataset", ""), name]),
        **how_it_was_made(config),
    )
    return _ended(card)


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
    path = str(template("demo_backbone_card.md"))
    return _ended(ModelCard.from_template(data, template_path=path, top1=results[0]["mean"], **config))


def _set_metadata(info: dict[str, Any], source: dict[str, Any], title: str, is_real: bool) -> DatasetCardData:
    made = [] if is_real else ["synthetic"]
    split = {"name": "train", "num_bytes": info["num_bytes"], "num_examples": info["num_examples"]}
    return DatasetCardData(
        pretty_name=" ".join(title.split()),
        license=source.get("license", "unknown"),
        license_name=source.get("license_name"),
        license_link=source.get("license_link"),
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


def _ended(card: RepoCard) -> str:
    """The text of a card, with an end of its last line."""
    return f"{str(card).rstrip()}\n"


def _eval_result(row: dict[str, Any], source: dict[str, Any], name: str) -> EvalResult:
    return EvalResult(
        task_type="image-classification",
        dataset_type=source.get("dataset", name),
        dataset_name=name,
        dataset_split=source.get("eval_split"),
        metric_type="accuracy",
        metric_name=f"top-1, mean of {row['n_seeds']} probes trained alike",
        metric_value=row["mean"],
    )


def _snippet(repo_id: str, source: dict[str, Any], backbone: dict[str, Any]) -> str:
    """Code that loads the set and trains a probe on it, at most 15 lines."""
    name, split = source.get("dataset", "DATASET"), source.get("eval_split") or source.get("split") or "test"
    imports = ["from datasets import load_dataset"]
    columns = [f"{key}={source[key]!r}" for key in ("image_column_name", "label_column_name") if key in source]
    classes = ["classes=distilled.class_names"] if source.get("has_selected_classes") else []
    ratio, names = backbone.get("resize_ratio", 1.0), ["DistilledSet", "evaluate_probe"]
    names += ["FrozenBackbone"] if "@" in backbone.get("name", "") else []
    names += ["LabelledImages"] if columns or classes else []
    ours = ", ".join(sorted(names, key=lambda name: (name[0].islower(), name)))
    if name == DEMO_DATASET:
        imports.append(f"from hf_lgm import {ours}\nfrom hf_lgm.demo import load_digits_images")
        loaded = 'test = load_digits_images()["test"]'
    else:
        imports.append(f"from hf_lgm import {ours}")
        config = f"{source['config']!r}, " if source.get("config") else ""
        where = "" if is_hub_id(name) else "  # the maker's folder"
        loaded = f'test = load_dataset("{name}", {config}split="{split}"){where}'
    lines = [
        *imports,
        "",
        f'images = load_dataset("{repo_id}", split="train")  # columns image and label, nothing else needed',
        "",
        f'distilled = DistilledSet.from_pretrained("{repo_id}")',
        loaded,
    ]
    if columns or classes:
        lines.append(f"test = LabelledImages.from_dataset(test, {', '.join([*columns, *classes])})")
    model, _, side = backbone.get("name", "BACKBONE").partition("@")
    where = "" if is_hub_id(model) or model in DEMO_MODELS else "  # the maker's folder"
    seen_through = f'"{model}"'
    if side:
        lines.append(
            f'backbone = FrozenBackbone.from_pretrained("{model}", image_size={side}, resize_ratio={ratio}){where}'
        )
        seen_through, where = "backbone", ""
    lines.append(f"result = evaluate_probe({seen_through}, distilled, test){where}")
    lines.append('print(f"{result.mean:.1f} ± {result.std:.1f} %")')
    return "\n".join(lines)


def _warnings(results: Sequence[dict[str, Any]], own: str, per_class: int, is_real: bool) -> list[str]:
    """What a reader has to know before using the set."""
    if is_real:
        return []
    found = [
        f"Through {plain(name)} these images are worth less than as many random real ones: do not use them there."
        for name in worse_than_random(results, own, per_class)
    ]
    means = top1_rows(results, CLASS_MEAN)
    ahead = {name: means[name]["mean"] - row["mean"] for name, row in top1_rows(results, own).items() if name in means}
    far = [f"{gap:.1f} points through {plain(name)}" for name, gap in ahead.items() if gap > _FAR]
    if far:
        found.append(
            f"The nearest class mean of all real images is ahead of them, by {', '.join(far)}: where the means can be "
            "had, they are the better summary."
        )
    return found


def _size_category(rows: int) -> str:
    limits = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for limit, name in limits.items() if rows < limit), "1M<n<10M")
