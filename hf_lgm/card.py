"""The card of a set, rendered from its own data."""

import json
from importlib.resources import files
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData

PAPER = "https://arxiv.org/abs/2511.16674"


def render_card(dataset: Dataset, config: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The README of a set, with the metadata that `load_dataset` and the Hub read.

    Args:
        dataset (`datasets.Dataset`): The images.
        config (`dict`): How they were made; every part may be missing.
        results (`list[dict]`): What was measured; may be empty.
    """
    source = config.get("source", {})
    backbone = config.get("backbone", {})
    name = source.get("name") or source.get("dataset", "unknown dataset")
    is_real = "source_index" in dataset.features
    done, through = "chosen" if is_real else "distilled", backbone.get("name", "an unknown backbone")
    data = DatasetCardData(
        pretty_name=f"{name}, {done} through {through}",
        license=source.get("license", "unknown"),
        license_name=source.get("license_name"),
        license_link=source.get("license_link"),
        task_categories=["image-classification"],
        size_categories=[_size_category(len(dataset))],
        annotations_creators=None if is_real else ["machine-generated"],
        tags=["dataset-distillation", "linear-gradient-matching", "hf_lgm", *([] if is_real else ["synthetic"])],
        dataset_info={
            "features": dataset.features._to_yaml_list(),
            "splits": [{"name": "train", "num_bytes": dataset.data.nbytes, "num_examples": len(dataset)}],
        },
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(files("hf_lgm") / "templates" / "dataset_card.md"),
        num_images=len(dataset),
        num_classes=dataset.features["label"].num_classes,
        is_real=is_real,
        source=name,
        backbone=backbone,
        settings=json.dumps(config.get("settings", {}), indent=2),
        command=config.get("command"),
        versions=config.get("versions", {}),
        results=[
            {**row, **{key: _in_table(row[key]) for key in ("training_set", "backbone", "protocol")}}
            for row in results
        ],
        paper=PAPER,
    )
    return str(card)


def _in_table(text: str) -> str:
    """Text that can't break a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _size_category(rows: int) -> str:
    return "n<1K" if rows < 1000 else "1K<n<10K" if rows < 10_000 else "10K<n<100K"
