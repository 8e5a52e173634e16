"""A small labelled set of images with how it was made and what it scores: a folder, a `Dataset`, a Hub repository."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import snapshot_download

from .augmentation import ViewSettings
from .card import render_card
from .columns import check_same_classes
from .figures import save_preview
from .hub import existing_path_or_id, must_use_cache
from .preprocessing import to_images, to_rgb, to_tensor

# Everything that a set consists of; what else lies in its folder is never read or published.
DATA_FILE = "data/train-00000-of-00001.parquet"
CONFIG_FILE = "lgm_config.json"
RESULTS_FILE = "results.json"
PREVIEW_FILE = "preview.png"
CARD_FILE = "README.md"
PUBLISHED_FILES = (CARD_FILE, DATA_FILE, PREVIEW_FILE, CONFIG_FILE, RESULTS_FILE)


@dataclass
class DistilledSet:
    """A few labelled images that stand for a dataset: distilled, or real ones chosen as a baseline.

    Args:
        dataset (`datasets.Dataset`): Columns `image` and `label` (`ClassLabel`), and `source_index` for real images.
        config (`dict`, *optional*): How it was made.
        results (`list[dict]`, *optional*): What was measured of it, as rows of [`ProbeResult`].
    """

    dataset: Dataset
    config: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_pixels(
        cls,
        pixels: torch.Tensor,
        labels: Sequence[int],
        class_names: list[str],
        config: dict[str, Any] | None = None,
        source_index: Sequence[int] | None = None,
    ) -> "DistilledSet":
        """A set of images of shape (n, 3, size, size) with values in [0, 1], rounded to 8 bits."""
        columns: dict[str, Any] = {"image": to_images(pixels), "label": list(labels)}
        features = Features({"image": datasets.Image(), "label": ClassLabel(names=class_names)})
        if source_index is not None:
            columns["source_index"] = list(source_index)
            features["source_index"] = Value("int64")
        return cls(Dataset.from_dict(columns, features=features), config or {})

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "DistilledSet":
        """Read a set from a folder or from the Hub. Nothing in it is executed.

        Args:
            name_or_path (`str` or `Path`): A folder, or a Hub dataset id.
            revision (`str`, *optional*): Branch, tag or commit.
            token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

        Raises:
            FileNotFoundError: If the folder or its data file is not there.
            HubError: If the Hub can't be reached.
        """
        name_or_path = existing_path_or_id(os.fspath(name_or_path), "DistilledSet")
        folder = Path(name_or_path)
        if not folder.is_dir():
            cached = must_use_cache(name_or_path, "dataset", "--sets")
            files = list(PUBLISHED_FILES)
            folder = Path(
                snapshot_download(
                    name_or_path,
                    repo_type="dataset",
                    revision=revision,
                    token=token,
                    allow_patterns=files,
                    local_files_only=cached,
                )
            )
        if not (folder / DATA_FILE).is_file():
            raise FileNotFoundError(f"'{name_or_path}' is not a distilled set: it has no {DATA_FILE}.")
        dataset = Dataset.from_parquet(str(folder / DATA_FILE), keep_in_memory=True)
        return cls(dataset, _read_json(folder / CONFIG_FILE, {}), _read_json(folder / RESULTS_FILE, []))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write parquet, card, preview, configuration and results; returns the folder."""
        folder = Path(folder)
        (folder / DATA_FILE).parent.mkdir(parents=True, exist_ok=True)
        table = datasets.table.embed_table_storage(self.dataset.with_format("arrow")[:])  # bytes, not paths of files
        temporary = folder / ".train.parquet.tmp"  # outside data/, where load_dataset would see it
        Dataset(datasets.table.InMemoryTable(table), info=self.dataset.info).to_parquet(str(temporary))
        temporary.rename(folder / DATA_FILE)
        _write_json(folder / CONFIG_FILE, self.config)
        _write_json(folder / RESULTS_FILE, self.results)
        save_preview(self.dataset, folder / PREVIEW_FILE)
        (folder / CARD_FILE).write_text(render_card(self.dataset, self.config, self.results), encoding="utf-8")
        return folder

    def with_results(self, results: list[dict[str, Any]]) -> "DistilledSet":
        """The same set with other results."""
        return replace(self, results=results)

    @property
    def is_real(self) -> bool:
        """Whether it holds real images, chosen as a baseline."""
        return "source_index" in self.dataset.features

    @property
    def images_per_class(self) -> int:
        """How many there are of each class."""
        return len(self.dataset) // len(self.class_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of pixels, labels and class names."""
        digest = hashlib.sha256(json.dumps([self.class_names, self.labels.tolist()]).encode())
        digest.update((self.pixels() * 255).round().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def class_names(self) -> list[str]:
        """Length C."""
        return list(self.dataset.features["label"].names)

    @property
    def labels(self) -> torch.Tensor:
        """Class indices, of shape (n,)."""
        return torch.tensor(self.dataset["label"][:])

    def labels_as(self, class_names: list[str], what: str = "The set has") -> torch.Tensor:
        """The labels, of shape (n,), as indices of these names.

        Raises:
            ValueError: If its classes are others; `what` is how that sentence begins.
        """
        check_same_classes(self.class_names, class_names, what)
        return torch.tensor([class_names.index(name) for name in self.class_names])[self.labels]

    @property
    def views(self) -> ViewSettings:
        """The views it was made with, which a probe should be trained on; the paper's where it does not say."""
        settings = self.config.get("settings", {})
        low, high = settings.get("crop_scale", ViewSettings.crop_scale)
        return ViewSettings(settings.get("flip", ViewSettings.flip), (low, high))

    def pixels(self) -> torch.Tensor:
        """The 8-bit images as a tensor of shape (n, 3, size, size) with values in [0, 1]."""
        return torch.stack([to_tensor(to_rgb(image)) for image in self.dataset["image"][:]]).float() / 255


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
