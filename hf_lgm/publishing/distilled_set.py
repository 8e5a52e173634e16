"""A small labelled set of images with how it was made and what it scores: a folder, a `Dataset`, a Hub repository."""

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, Features
from PIL import Image

from ..data.columns import check_same_classes
from ..data.images import to_images, to_rgb, to_tensor
from ..hub import existing_path_or_id, first_line
from ..settings import ViewSettings
from ..whole_files import replacing_together
from . import display
from .card import render_set_card
from .figures import save_preview
from .files import (
    CARD_FILE,
    COMPARISON_FILE,
    CONFIG_FILE,
    DATA_FILE,
    PREVIEW_FILE,
    PUBLISHED_FILES,
    RESULTS_FILE,
    check_files,
    fetch_files,
    read_json,
    write_json,
)
from .plain_sets import set_columns
from .provenance import reason_to_be_private
from .repository import HubRepository
from .rows import COLUMNS, features_of, own_images, read_rows
from .schema import check_config, check_results

logger = logging.getLogger(__name__)


def set_repository(repo_id: str, config: dict[str, Any], **kwargs: Any) -> HubRepository:
    """Where [`~DistilledSet.push_to_hub`] puts a set of this configuration; `open()` says what is in the way."""
    why = reason_to_be_private(config.get("source", {}))
    return HubRepository(repo_id, "dataset", config=config, why_private=why, **kwargs)


def planned_card(config: dict[str, Any], features: Features, num_images: int, repo_id: str) -> str:
    """The card of a set that is still to be made: its metadata is what will be published, but for sizes."""
    num_classes = len(features["label"].names)
    num_real = num_classes * config.get("settings", {}).get("real_images_per_class", 0)
    sizes = {"num_examples": num_images, "num_classes": num_classes, "num_bytes": 0, "num_real_images": num_real}
    info = {"features": features._to_yaml_list(), "download_size": 0, **sizes}
    return render_set_card({**config, "dataset_info": info}, [], repo_id)


@dataclass
class DistilledSet:
    """A few labelled images that stand for a dataset: distilled, or real ones chosen as a baseline, or some of both.

    It has a length, rows and slices like its `datasets.Dataset`, where an image that is not here is `None`, and shows
    itself in a notebook.

    Args:
        dataset (`datasets.Dataset`): Columns `image` and `label` (`ClassLabel`); `soft_label`, a distribution over
            classes, where labels were learned; `source_index` for real images, null for others: they may be without
            `image`, see [`~DistilledSet.without_images`].
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
        source_index: Sequence[int | None] | None = None,
        soft_labels: torch.Tensor | None = None,
    ) -> "DistilledSet":
        """A set of images of shape (n, 3, size, size) with values in [0, 1], rounded to 8 bits.

        Soft labels have shape (n, C). Of images that are no real ones `source_index` is `None`.
        """
        columns: dict[str, Any] = {"image": to_images(pixels), "label": list(labels)}
        if source_index is not None:
            columns["source_index"] = list(source_index)
        if soft_labels is not None:
            columns["soft_label"] = soft_labels.cpu().tolist()
        features = features_of(class_names, source_index is not None, soft_labels is not None)
        return cls(Dataset.from_dict(columns, features=features), config or {})

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "DistilledSet":
        """Read a set from a folder or from the Hub. Nothing in it is executed, and no other file is opened.

        All of it is checked, and images are decoded once: see `SECURITY.md`.

        Args:
            name_or_path (`str` or `Path`): A folder, or a Hub dataset id.
            revision (`str`, *optional*): Branch, tag or commit.
            token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

        Raises:
            FileNotFoundError: If the folder or its data file is not there.
            HubError: If the repository can't be had; the message says what to do.
            ValueError: If what is there is not a set; the message names the file and what is wrong in it.
        """
        name = existing_path_or_id(os.fspath(name_or_path), "DistilledSet")
        folder = Path(name)
        if not folder.is_dir():
            folder = fetch_files(name, revision, token)
        if not (folder / DATA_FILE).is_file():
            raise FileNotFoundError(f"'{name}' is not a distilled set: it has no {DATA_FILE}.")
        check_files(name, folder)
        config, results = read_json(folder / CONFIG_FILE, dict), read_json(folder / RESULTS_FILE, list)
        check_config(config)
        check_results(results)
        dataset = read_rows(folder / DATA_FILE)
        if not config:
            logger.warning("'%s' has no %s: probes are trained on it with the default views", name, CONFIG_FILE)
        config.pop("dataset_info", None)
        return cls(dataset, config, results)

    @classmethod
    def wrap(cls, images: Any) -> "DistilledSet":
        """A set of one itself, its folder or Hub id, or a plain dataset of a few images.

        A plain dataset does not say with which views it was made: probes are trained on the default ones.

        Args:
            images ([`DistilledSet`], `str`, `Path`, `datasets.Dataset` or `datasets.DatasetDict`): A dataset has a
                column of images of one size and one of labels, a dictionary one split: what `load_dataset` gives for
                a set's folder.

        Raises:
            TypeError: If it is something else.
            ValueError: If it has several splits, a column is missing, or images differ in size.
        """
        if isinstance(images, cls):
            return images
        if isinstance(images, (str, Path)):
            return cls.from_pretrained(images)
        return cls(set_columns(images))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return display.rows_at(self, index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return display.in_one_line(self)

    def _repr_html_(self) -> str:
        return display.as_html(self)

    def show(self, max_images: int = display.MAX_NAMED) -> Image.Image:
        """A picture of the images in a grid, each above the name of its class; a notebook shows it.

        Args:
            max_images (`int`, *optional*, defaults to 100): Of a larger set as many are shown, evenly spread, and a
                line below says so. Real images that are not here are hatched.

        Raises:
            ValueError: If no image may be shown.
        """
        return display.picture(self, max_images)

    def save_pretrained(
        self, folder: str | Path, *, repo_id: str | None = None, comparison: str | Path | None = None
    ) -> Path:
        """Write parquet, card, preview, configuration and results; returns the folder.

        Args:
            folder (`str` or `Path`): Where to.
            repo_id (`str`, *optional*): What the card says it is loaded by; the folder's name where not given.
            comparison (`str` or `Path`, *optional*): A figure with real images, for the card to show.

        Raises:
            ValueError: If an image is a file or an address, as in a plain dataset that was loaded from a folder.
        """
        dataset, folder = self._to_save(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_together(folder, DATA_FILE, CONFIG_FILE) as temporary:  # this one says that the rest is ours
            self._write(dataset, temporary, repo_id or folder.resolve().name, comparison)
            if not (temporary / PREVIEW_FILE).exists():
                (folder / PREVIEW_FILE).unlink(missing_ok=True)
        return folder

    def _write(self, dataset: Dataset, folder: Path, name: str, comparison: str | Path | None) -> None:
        """The files, into a folder of their own; the card calls the set by a name."""
        data = folder / DATA_FILE
        data.parent.mkdir()
        dataset.to_parquet(str(data))
        info = {
            "features": dataset.features._to_yaml_list(),
            "num_examples": len(self.dataset),
            "num_classes": len(self.class_names),
            "num_bytes": dataset.data.nbytes,
            "download_size": data.stat().st_size,
        }
        if self.has_real_images and not self.is_real:
            info |= {"num_real_images": int(self.real_rows.sum()), "num_without_image": len(self.missing_rows)}
        config = {**self.config, "dataset_info": info}
        write_json(folder / CONFIG_FILE, config)
        write_json(folder / RESULTS_FILE, self.results)
        if len(self.missing_rows) < len(self.dataset):
            save_preview(dataset, folder / PREVIEW_FILE)
        if comparison:
            shutil.copyfile(comparison, folder / COMPARISON_FILE)
        card = render_set_card(config, self.results, name, comparison is not None)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")

    def _to_save(self) -> Dataset:
        """The columns of a set, with the images themselves: no file and no address is opened to publish what it holds.

        Raises:
            ValueError: If an image is not in the set.
        """
        kept = self.dataset.select_columns([name for name in self.dataset.column_names if name in COLUMNS])
        table = kept.with_format("arrow")[:]
        if "image" in table.column_names:
            try:
                images = own_images(table["image"])
            except ValueError as error:
                raise ValueError(
                    f"{first_line(error)} A set holds its images themselves. To take in those of your own files: "
                    'set.with_images(set.dataset["image"][:]).'
                ) from error
            table = table.set_column(table.column_names.index("image"), "image", images)
        return Dataset(datasets.table.InMemoryTable(table), info=kept.info)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        tag: str | None = None,
        overwrite: bool = False,
        include_source_images: bool = False,
        comparison: str | Path | None = None,
        commit_message: str = "Upload with hf_lgm",
        token: str | None = None,
    ) -> str:
        """Publish the set as a Hub dataset, in one commit; returns its address.

        Real images stay here: their rows in the source are published, from which they are rebuilt.

        Args:
            repo_id (`str`): `user/name`; created if need be.
            private (`bool`, *optional*): Whether a new repository is private; where not given it is if the source is
                gated, or its licence is unknown, its own or non-commercial.
            tag (`str`, *optional*): Tag of the commit, such as `v1.0`.
            overwrite (`bool`, *optional*, defaults to `False`): Replace whatever else the repository holds.
            include_source_images (`bool`, *optional*, defaults to `False`): Publish real images too.
            comparison (`str` or `Path`, *optional*): A figure with real images for the card, if they are included.
            commit_message (`str`, *optional*): Of the commit.
            token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

        Raises:
            HubError: If it did not work; the message says what the repository holds, and what to do.
        """
        published = self.to_publish(include_source_images)
        repository = set_repository(repo_id, self.config, private=private, tag=tag, overwrite=overwrite, token=token)
        with tempfile.TemporaryDirectory() as temporary:
            shown = comparison if include_source_images else None
            folder = published.save_pretrained(temporary, repo_id=repo_id, comparison=shown)
            names = (*PUBLISHED_FILES, COMPARISON_FILE)
            files = {name: folder / name for name in names if (folder / name).is_file()}
            return repository.push(files, commit_message)

    def to_publish(self, include_source_images: bool = False) -> "DistilledSet":
        """The set as others get it: without the images that are real, unless these are to be included."""
        return self if include_source_images or not self.has_real_images else self.without_images()

    def without_images(self) -> "DistilledSet":
        """Real images as rows of their source, for where the images themselves may not go; learned ones stay."""
        config = {**self.config, "images_sha256": self.fingerprint} if self.has_images else self.config
        if self.is_real:
            others = [name for name in self.dataset.column_names if name != "image"]
            return replace(self, dataset=self.dataset.select_columns(others), config=config)
        images = zip(self.dataset["image"][:], self.real_rows.tolist(), strict=True)
        published = self.with_images([None if is_real else image for image, is_real in images])
        return replace(published, config=config)

    def with_images(self, images: Sequence[Image.Image | None]) -> "DistilledSet":
        """The same rows with these images, one for each, without loss; `None` where a real one is not to be had."""
        others = {name: self.dataset[name][:] for name in self.dataset.column_names if name != "image"}
        features = {name: kind for name, kind in self.dataset.features.items() if name != "image"}
        copies = [None if image is None else image.copy() for image in images]  # which know of no file
        columns = {"image": copies, **others}
        dataset = Dataset.from_dict(columns, features=Features({"image": datasets.Image(), **features}))
        return replace(self, dataset=dataset)

    def with_results(self, results: list[dict[str, Any]]) -> "DistilledSet":
        """The same set with other results."""
        return replace(self, results=results)

    @property
    def is_real(self) -> bool:
        """Whether all of it are real images, chosen as a baseline."""
        return "source_index" in self.dataset.features and bool(self.real_rows.all())

    @property
    def has_real_images(self) -> bool:
        """Whether some of it are real images: all of a baseline, or those that learned ones complete."""
        return bool(self.real_rows.any())

    @property
    def real_rows(self) -> torch.Tensor:
        """Which of the images are real ones, of shape (n,), boolean."""
        if "source_index" not in self.dataset.features:
            return torch.zeros(len(self.dataset), dtype=torch.bool)
        return torch.tensor([row is not None for row in self.dataset["source_index"][:]])

    @property
    def has_images(self) -> bool:
        """Whether all images are here; of published real ones only their rows in the source are."""
        return len(self.missing_rows) == 0

    @property
    def missing_rows(self) -> torch.Tensor:
        """The rows whose image is not here, of shape (m,)."""
        if "image" not in self.dataset.features:
            return torch.arange(len(self.dataset))
        stored = self.dataset.with_format("arrow", columns=["image"])[:]["image"]
        return torch.tensor(stored.is_null().to_pylist()).nonzero()[:, 0]

    @property
    def has_soft_labels(self) -> bool:
        """Whether its labels were learned."""
        return "soft_label" in self.dataset.features

    @property
    def images_per_class(self) -> int:
        """How many there are of each class."""
        return len(self.dataset) // len(self.class_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of pixels, labels and class names."""
        digest = hashlib.sha256(json.dumps([self.class_names, self.labels.tolist()]).encode())
        digest.update((self.pixels() * 255).round().to(torch.uint8).numpy().tobytes())
        if self.has_soft_labels:
            digest.update(self.targets_as(self.class_names).numpy().tobytes())
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

    def targets_as(self, class_names: list[str]) -> torch.Tensor:
        """What a probe is trained with: the soft labels, of shape (n, C), where there are any, else one-hot ones.

        Raises:
            ValueError: If its classes are others.
        """
        labels = self.labels_as(class_names)
        if not self.has_soft_labels:
            return torch.nn.functional.one_hot(labels, len(class_names)).float()
        order = [self.class_names.index(name) for name in class_names]
        return torch.tensor(self.dataset["soft_label"][:])[:, order]

    @property
    def views(self) -> ViewSettings:
        """The views it was made with, which a probe should be trained on; the defaults where it does not say."""
        settings = self.config.get("settings", {})
        low, high = settings.get("crop_scale", ViewSettings.crop_scale)
        bounded = settings.get("bounded_crops", ViewSettings.bounded_crops)
        return ViewSettings(settings.get("flip", ViewSettings.flip), (low, high), bounded_crops=bounded)

    def pixels(self) -> torch.Tensor:
        """The 8-bit images as a tensor of shape (n, 3, size, size) with values in [0, 1].

        Raises:
            ValueError: If only rows of the source are here.
        """
        if not self.has_images:
            raise ValueError(
                "This set holds rows of real images without the images: evaluate it beside its source with "
                "scripts/evaluate.py, or rebuild it: "
                "hf_lgm.evaluation.baselines.with_source_images(set, train_images)."
            )
        return torch.stack([to_tensor(to_rgb(image)) for image in self.dataset["image"][:]]).float() / 255
