"""Real images in the form of a distilled set: what it has to beat, from a random draw to the best real choice."""

import logging
from dataclasses import replace
from typing import Any, get_args

import torch
import torch.nn.functional as F

from ..backbones.backbone import FrozenBackbone
from ..backbones.preprocessing import DEFAULT_RESIZE_RATIO, Preprocessing
from ..data.images import centre_crop, to_images, to_tensor
from ..data.labelled_images import LabelledImages, indices_by_class
from ..distillation.objectives import LabelledFeatures, balanced_weights, probe_gradient
from ..features.coresets import (
    centroid_rows,
    herding_rows,
    kmeans_rows,
    neighbor_rows,
    random_rows,
)
from ..features.extraction import FeatureExtractor
from ..progress import progress
from ..publishing.distilled_set import DistilledSet
from ..publishing.provenance import library_versions
from ..randomness import seeded_generator
from ..settings import BaselineKind

logger = logging.getLogger(__name__)

_PROBES = 4
_MAX_SWEEPS = 20


def select_baseline(
    kind: str,
    backbone: Any,
    train_dataset: Any,
    images_per_class: int = 1,
    *,
    seed: int = 0,
    neighbors_of: Any = None,
    config: dict[str, Any] | None = None,
    extractor: FeatureExtractor | None = None,
    **loading: Any,
) -> DistilledSet:
    """Real images, chosen by their features, with their row in the source as `source_index`.

    Args:
        kind (`str`): `"random"`: drawn by the seed. `"centroid"`: nearest to their class mean (paper, section 4).
            `"neighbor"`: most similar to the images of a distilled set (paper, section 4), by cosine. `"kmeans"`:
            nearest to the centres of k-means clusters of the class. `"herding"`: one after the other, so that their
            mean stays nearest to the class mean (arXiv 1205.2046, as in iCaRL). `"matched"`: the best by the objective
            of the distillation that exchanging one image at a time reaches, see [`matched_rows`]. With one image per
            class `"kmeans"` and `"herding"` are `"centroid"`.
        backbone ([`FrozenBackbone`], `str` or `torch.nn.Module`): What they are chosen through; also a live model.
        train_dataset (`datasets.Dataset` or [`LabelledImages`]): What they are chosen from; also what
            [`LabelledImages.wrap`] takes besides.
        images_per_class (`int`, *optional*, defaults to 1): How many of each class; neighbours are as the set.
        seed (`int`, *optional*, defaults to 0): Of the draw, the clusters and the random probes.
        neighbors_of ([`DistilledSet`], `str` or `datasets.Dataset`, *optional*): The set whose neighbours are meant.
        config (`dict`, *optional*): What the card says besides; its `settings` hold the views to train a probe on.
        extractor ([`FeatureExtractor`], *optional*): Encodes real images.
        loading (*optional*): `accelerator`, `batch_size`, `num_workers` of an extractor, where none is given.

    Raises:
        ValueError: If there is no such kind, a class has too few images, or the images of a stream are gone.
    """
    near = None if neighbors_of is None else DistilledSet.wrap(neighbors_of)
    images_per_class = near.images_per_class if near else images_per_class
    if images_per_class < 1:
        raise ValueError(f"images_per_class must be at least 1, found {images_per_class}.")
    if kind not in get_args(BaselineKind):
        raise ValueError(f"The kind must be one of {', '.join(get_args(BaselineKind))}, found '{kind}'.")
    if (kind == "neighbor") != (neighbors_of is not None):
        raise ValueError("kind='neighbor' and neighbors_of belong together: whose neighbours are meant.")
    images = LabelledImages.wrap(train_dataset)
    if images.is_streamed and kind != "random":
        raise ValueError(f"'{kind}' needs all real images again, and a stream is read once: do not stream it.")
    images = images.with_images()
    images.check_classes(images_per_class)
    near = with_source_images(near, images) if near else None
    extractor, backbone = FeatureExtractor.given(extractor, loading), FrozenBackbone.wrap(backbone)
    if kind == "random":
        rows = random_rows(images.labels, images.num_classes, images_per_class, seed)
    else:
        z = extractor.extract(backbone, images).float()
        if near is not None:
            labels = near.labels_as(images.class_names)
            rows = neighbor_rows(z, images.labels, centre_features(backbone, near, extractor.batch_size), labels)
        else:
            rows = _chosen_rows(kind, z, images, images_per_class, seed, extractor.accelerator.device)
    described = {"kind": kind, "images_per_class": images_per_class, "seed": seed, "resize_ratio": 1.0}
    made = {"baseline": described, "backbone": backbone.describe(), "versions": library_versions()}
    return real_image_set(images, rows, backbone.preprocessing.synthetic_size, config={**(config or {}), **made})


def _chosen_rows(
    kind: str, z: torch.Tensor, images: LabelledImages, images_per_class: int, seed: int, device: torch.device
) -> torch.Tensor:
    """Rows that are chosen by the real features alone."""
    y, num_classes = images.labels, images.num_classes
    if kind == "kmeans":
        return kmeans_rows(z, y, num_classes, images_per_class, seed)
    if kind == "herding":
        return herding_rows(z, y, num_classes, images_per_class)
    rows = centroid_rows(z, y, num_classes, images_per_class)
    if kind == "matched":
        return matched_rows(z.to(device), y.to(device), num_classes, rows.to(device), seed=seed).cpu()
    return rows


def real_image_set(
    images: LabelledImages, rows: torch.Tensor, size: int, resize_ratio: float = 1.0, config: dict | None = None
) -> DistilledSet:
    """Real images in the form of a distilled set: their central squares, with their rows in the source.

    The whole square, as in the paper: what a backbone's own resize would cut off, a distilled image has too.

    Args:
        images ([`LabelledImages`]): Where they are taken from.
        rows (`torch.Tensor`): Shape (n,), which ones.
        size (`int`): Side in pixels.
        resize_ratio (`float`, *optional*, defaults to 1.0): More keeps less of the square, as earlier sets did.
        config (`dict`, *optional*): What the card says.
    """
    chosen = images.select(rows)
    pixels, labels = chosen.centre_crops(size, resize_ratio) / 255, chosen.labels.tolist()
    return DistilledSet.from_pixels(pixels, labels, images.class_names, config, chosen.rows.tolist())


def with_source_images(rows: DistilledSet, train_images: LabelledImages) -> DistilledSet:
    """Real images again, of a set that was published without them.

    Args:
        rows ([`DistilledSet`]): The set, whose learned images stay; one that has its images is returned as it is.
        train_images ([`LabelledImages`]): The train split of its source.

    Raises:
        ValueError: If these are not the images that were chosen.
    """
    if rows.has_images:
        return rows
    where = f"the train split of {rows.config.get('source', {}).get('dataset', 'its source')}"
    if train_images.is_streamed:
        raise ValueError(f"This set is rows of {where}, whose images a stream does not keep: do not stream it.")
    missing = rows.missing_rows
    wanted = torch.tensor(rows.dataset.select(missing.tolist())["source_index"][:])
    total = len(train_images.source)
    if int(wanted.max()) >= total:
        raise ValueError(f"This set has row {int(wanted.max())} of {where}; the data has {total} rows.")
    chosen = replace(train_images, rows=wanted, labels=rows.labels[missing], groups=None)
    found = iter(to_images(chosen.centre_crops(*_geometry(rows)) / 255))
    here = rows.dataset["image"][:] if "image" in rows.dataset.features else [None] * len(rows.dataset)
    rebuilt = rows.with_images([next(found) if image is None else image for image in here])
    if rebuilt.fingerprint != rows.config.get("images_sha256", rebuilt.fingerprint):
        raise ValueError(f"This set is rows of {where}, and the data has other images there: give the same revision.")
    return rebuilt


def _geometry(rows: DistilledSet) -> tuple[int, float]:
    """Side and resize ratio of a set's real images."""
    if not rows.is_real:  # whole squares, as large as the learned ones
        return rows.dataset[int((~rows.real_rows).nonzero()[0, 0])]["image"].width, 1.0
    made = rows.config.get("backbone", {})
    cut_as_their_backbone = made.get("resize_ratio", DEFAULT_RESIZE_RATIO)  # sets of earlier versions
    ratio = rows.config.get("baseline", {}).get("resize_ratio", cut_as_their_backbone)
    return Preprocessing(made.get("image_size") or 224).synthetic_size, ratio


def centre_features(backbone: FrozenBackbone, images: DistilledSet, batch_size: int) -> torch.Tensor:
    """Features of shape (n, D) of the centre crops of a set's images."""
    geometry = backbone.preprocessing.geometry
    crops = torch.stack([to_tensor(centre_crop(image, *geometry)) for image in images.dataset["image"][:]])
    return torch.cat([backbone.encode(batch).float().cpu() for batch in crops.split(batch_size)])


def matched_rows(
    z: torch.Tensor, y: torch.Tensor, num_classes: int, rows: torch.Tensor, probe_std: float = 0.01, seed: int = 0
) -> torch.Tensor:
    """Rows that no exchange of one image for another of its class improves, of the shape of `rows`: a local optimum.

    Coordinate descent on the objective of the distillation, `linear_gradient_matching`, averaged over a few random
    probes, with the centre crop of each image for its views. The gradient of a set is the sum of its images', each the
    outer product of an error (C,) and a feature (D + 1,), so that all images of a class are scored for all places of
    the class by three products of matrices.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of all real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        num_classes (`int`): C.
        rows (`torch.Tensor`): Shape (n,), the rows to begin with.
        probe_std (`float`, *optional*, defaults to 0.01): Of the random probes.
        seed (`int`, *optional*, defaults to 0): Draws them.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    rows, of_each_class, places = rows.clone(), *(indices_by_class(of, num_classes) for of in (y, y[rows]))
    probes = [_Probe(z, y, num_classes, probe_std, seed, number) for number in range(_PROBES)]
    for sweep in range(_MAX_SWEEPS):
        before = rows.clone()
        for probe in probes:
            probe.begin(rows)
        for label in progress(range(num_classes), desc=f"matching, sweep {sweep + 1}", unit="class"):
            _exchange(rows, places[label], of_each_class[label], probes)
        if torch.equal(rows, before):
            return rows
    logger.warning(
        "Matched images still change after %d sweeps over all of them: these are not yet the best", _MAX_SWEEPS
    )
    return rows


def _exchange(rows: torch.Tensor, places: torch.Tensor, of_class: torch.Tensor, probes: "list[_Probe]") -> None:
    """Give each place of one class the best of its rows, one after the other."""
    scored = [_Candidates(probe, of_class) for probe in probes]
    least = max(1e-9, 16 * torch.finfo(probes[0].z.dtype).eps)  # what rounding gains could go on for ever
    for place in places:
        here = int((of_class == rows[place]).nonzero()[0, 0])
        scores = torch.stack([candidates.cosines(here) for candidates in scored]).mean(dim=0)
        taken = torch.isin(of_class, rows[places])
        best = int(scores.masked_fill(taken, -torch.inf).argmax())
        if scores[best] > scores[here] + least and not taken[best]:
            rows[place] = of_class[best]
            for candidates in scored:
                candidates.exchange(here, best)


class _Probe:
    """One random probe: the direction of the real gradient, and the gradient of the set with each image's share in it.

    Attributes:
        total (`torch.Tensor`): Shape (C, D + 1), the gradient of the set.
        along (`torch.Tensor`): A scalar, its product with the direction of the real gradient.
        square (`torch.Tensor`): A scalar, its squared length.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        y (`torch.Tensor`): Shape (N,).
        num_classes (`int`): C.
        std (`float`): Of its weights.
        seed (`int`): With `number`, draws them.
        number (`int`): Which one it is.
    """

    total: torch.Tensor
    along: torch.Tensor
    square: torch.Tensor

    def __init__(self, z: torch.Tensor, y: torch.Tensor, num_classes: int, std: float, seed: int, number: int) -> None:
        generator = seeded_generator(seed, "matched probe", number)
        W = (std * torch.randn(num_classes, z.shape[1], generator=generator)).to(z)
        self.target = F.normalize(probe_gradient(LabelledFeatures(z, y, balanced_weights(y)), W).flatten(), dim=0)
        self.target = self.target.view(num_classes, -1)  # (C, D + 1)
        self.W, self.z, self.y = W, z, y

    def factors(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors (n, C) and features (n, D + 1), whose outer products are the images' gradients."""
        z = self.z[rows]
        errors = (z @ self.W.T).softmax(dim=1) - F.one_hot(self.y[rows], len(self.W)).to(z)
        return errors, torch.cat([z, z.new_ones(len(z), 1)], dim=1)

    def begin(self, rows: torch.Tensor) -> None:
        """Take these rows as the set."""
        errors, features = self.factors(rows)
        self.total = errors.T @ features
        self.along, self.square = (self.target * self.total).sum(), self.total.square().sum()


class _Candidates:
    """The images of one class, as gradients of one probe, and their products with what they are compared with.

    Args:
        probe ([`_Probe`]): Is told of exchanges.
        rows (`torch.Tensor`): Shape (n,).
    """

    def __init__(self, probe: _Probe, rows: torch.Tensor) -> None:
        self.probe = probe
        self.errors, self.features = probe.factors(rows)
        self.own = self.errors.square().sum(dim=1) * self.features.square().sum(dim=1)
        self.with_target, self.with_total = self._products(probe.target), self._products(probe.total)

    def cosines(self, here: int) -> torch.Tensor:
        """Cosine of the set's gradient with the real one, for each candidate in the place of the one here: (n,)."""
        along = self.probe.along - self.with_target[here] + self.with_target
        rest = self.probe.square - 2 * self.with_total[here] + self.own[here]
        squared = rest + 2 * (self.with_total - self._with(here)) + self.own
        return along / squared.clamp(min=1e-30).sqrt()

    def exchange(self, old: int, new: int) -> None:
        """Put one candidate in the place of another."""
        probe, change = self.probe, self._with(new) - self._with(old)
        probe.along = probe.along + self.with_target[new] - self.with_target[old]
        probe.square = probe.square + 2 * (self.with_total[new] - self.with_total[old]) + change[new] - change[old]
        probe.total.addr_(self.errors[new], self.features[new])
        probe.total.addr_(self.errors[old], self.features[old], alpha=-1)
        self.with_total = self.with_total + change

    def _with(self, number: int) -> torch.Tensor:
        """Products of all with one of them, of shape (n,)."""
        return (self.features @ self.features[number]) * (self.errors @ self.errors[number])

    def _products(self, gradient: torch.Tensor) -> torch.Tensor:
        """Products of all with a gradient (C, D + 1), of shape (n,)."""
        return ((self.features @ gradient.T) * self.errors).sum(dim=1)
