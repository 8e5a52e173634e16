"""What can be chosen, free of torch: the words for modes, how views and probes are made, which data are used."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

BaselineKind = Literal["random", "centroid", "neighbor", "kmeans", "herding", "matched"]
Channels = Literal["auto", 1, 3]
Decode = Literal["exact", "fast"]
Initialization = Literal["noise", "centroid", "random"]
Objective = Literal["lgm", "ridge"]
Parameterization = Literal["pyramid", "pixel", "latent"]
PresetName = Literal["default", "paper", "transfer"]
Pooling = Literal["cls", "pooler", "mean", "gap", "projection"]
Projection = Literal["pca", "umap"]
ProtocolName = Literal["fast", "paper"]
RealFeatures = Literal["cached", "online"]

# What is chosen where nothing else is said. `paper` is the paper's protocol as its authors run it, see docs/paper.md.
PRESETS: dict[PresetName, dict[str, Any]] = {
    "default": {},
    "paper": {
        "max_steps": 5001,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "growth_steps": 200,
        "channels": 3,
        "init": "noise",
        "init_weight": 0.0,
        "view_sizes": [],
        "layers": 0,
        "objective": "lgm",
        "bounded_crops": False,
        "real_features": "online",
        "balance_classes": False,
        "cluster_classes": False,
        "protocol": "paper",
        "save_steps": 500,
    },
    "transfer": {"max_steps": 600},
}

# Pillow's own limit, twice its `MAX_IMAGE_PIXELS`: a small file may be made to fill memory.
MAX_IMAGE_PIXELS = 178_956_970


@dataclass(frozen=True)
class ViewSettings:
    """How a random view is made of an image (paper, section 3.3).

    Args:
        flip (`bool`, *optional*, defaults to `True`): Mirror half of the views. Wrong for digits and text.
        crop_scale (`tuple[float, float]`, *optional*, defaults to `(0.08, 1.0)`): Range of the cropped area, as a
            share of the image. `(1, 1)` keeps the whole image.
        crop_ratio (`tuple[float, float]`, *optional*, defaults to `(3/4, 4/3)`): Range of the crop's width over its
            height, drawn log-uniformly.
        noise_std (`float`, *optional*, defaults to 0.2): Standard deviation of the pixel noise, in units of [0, 1].
        noise_mean (`float`, *optional*, defaults to 0.0): Mean of the pixel noise; 0.5 in the paper's first release.
        noise_probability (`float`, *optional*, defaults to 0.5): Share of the views that get noise.
        bounded_crops (`bool`, *optional*, defaults to `True`): Keep crops within the image, no wider and no higher.
            The paper's code does not: 14 % of its views are, and what lies beside the image is black.

    Raises:
        ValueError: If `crop_scale` is not a range of areas.
    """

    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    noise_std: float = 0.2
    noise_mean: float = 0.0
    noise_probability: float = 0.5
    bounded_crops: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_scale", tuple(self.crop_scale))  # of YAML and flags it is a list
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            found = list(self.crop_scale)
            raise ValueError(f"crop_scale must be two areas 0 < smallest <= largest <= 1, found {found}.")

    def without_noise(self) -> "ViewSettings":
        """The views that a probe is trained on: flip and crop only."""
        return replace(self, noise_probability=0.0)


@dataclass(frozen=True)
class ProbeProtocol:
    """How a probe is trained: Adam with a cosine schedule, on one random view (flip and crop) of each image per epoch.

    The default, `"fast"`, encodes 50 views of each image once and shows them in turn, at a learning rate that
    converges. `ProbeProtocol.named("paper")` makes fresh views in all of its epochs, in batches of 100, at a learning
    rate of 1e-3 * batch / 256 (paper, section 4). For ten images that is 3.9e-5, which has not converged by then: see
    `benchmarks/README.md`.

    Args:
        epochs (`int`, *optional*, defaults to 1000): Passes over the images.
        learning_rate (`float`, *optional*, defaults to 1e-3): At the start; `None` for 1e-3 * batch / 256.
        views (`int`, *optional*, defaults to 50): Views of each image, used in turn; as many as epochs are fresh ones.
        batch_size (`int`, *optional*, defaults to 8192): Images per step at most; larger sets are shuffled.
        seeds (`int`, *optional*, defaults to 5): Probes, each with its own start and views.

    Raises:
        ValueError: If `views`, `batch_size` or `seeds` is below one.
    """

    epochs: int = 1000
    learning_rate: float | None = 1e-3
    views: int = 50
    batch_size: int = 8192
    seeds: int = 5

    def __post_init__(self) -> None:
        for name in ("views", "batch_size", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"A probe protocol needs at least one of its {name}, found {getattr(self, name)}.")

    @classmethod
    def named(cls, name: str, learning_rate: float | None = None, seeds: int = 5) -> "ProbeProtocol":
        """The protocol `"fast"` or `"paper"`, with another learning rate where one is given.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in get_args(ProtocolName):
            raise ValueError(f"The protocol must be one of {', '.join(get_args(ProtocolName))}, found '{name}'.")
        if name == "fast":
            return cls(learning_rate=learning_rate or cls.learning_rate, seeds=seeds)
        return cls(learning_rate=learning_rate, views=cls.epochs, batch_size=100, seeds=seeds)

    @property
    def training(self) -> str:
        """How weights are found, in a few words, for tables and files."""
        rate = "1e-3 * batch / 256" if self.learning_rate is None else f"{self.learning_rate:g}"
        return f"probe: {self.epochs} epochs of Adam, lr {rate}, cosine"

    @property
    def description(self) -> str:
        """The same with the views."""
        return f"{self.training}, {'fresh' if self.views >= self.epochs else f'{self.views} cached'} views"

    def rate(self, num_images: int) -> float:
        """The learning rate for so many images."""
        return self.learning_rate or 1e-3 * min(self.batch_size, num_images) / 256


@dataclass
class ColumnOptions:
    """What of one split is used.

    Args:
        image_column_name (`str`, *optional*): Column of the images; where not given, the one of type `Image`. Paths or
            encoded bytes have to be named.
        label_column_name (`str`, *optional*): Column of the labels; where not given, the one of type `ClassLabel`,
            else one called `label`, `cls` or the like.
        group_column_name (`str`, *optional*): Column of groups, such as backgrounds, to report the worst of.
        classes (`list[str]`, *optional*): Names or numbers of the classes to use, in their new order; all where not
            given.
        skip_bad_images (`bool`, *optional*, defaults to `False`): Leave out and count images that can't be read. Every
            image is decoded once for it.
        max_image_pixels (`int`, *optional*, defaults to 178956970): Larger images can't be read: a small file may be
            made to fill memory. The default is Pillow's.
        decode (`str`, *optional*, defaults to `"exact"`): How images become what a backbone takes: exact as Pillow
            decodes and resizes them; fast decodes large JPEGs at a half, a quarter or an
            eighth, at least twice as large as needed, and resizes with torch.

    Raises:
        ValueError: If no pixel is allowed, or decode is something else.
    """

    image_column_name: str | None = None
    label_column_name: str | None = None
    classes: Sequence[str | int] = field(default_factory=list)
    group_column_name: str | None = None
    skip_bad_images: bool = False
    max_image_pixels: int = MAX_IMAGE_PIXELS
    decode: Decode = "exact"

    def __post_init__(self) -> None:
        if self.max_image_pixels < 1:
            raise ValueError(f"max_image_pixels must be at least 1, found {self.max_image_pixels}.")
        if self.decode not in get_args(Decode):
            raise ValueError(f"decode must be one of {', '.join(get_args(Decode))}, found '{self.decode}'.")


@dataclass
class DataOptions(ColumnOptions):
    """What of a dataset is used, besides what [`ColumnOptions`] say of each split.

    Args:
        dataset_config (`str`, *optional*): Configuration of the dataset.
        train_split (`str`, *optional*, defaults to `"train"`): Split to distil.
        eval_split (`str`, *optional*): Split to evaluate on; where not given, the first of `validation`, `test` and
            the like that exists, else a fifth of each class is held out.
        max_train_samples (`int`, *optional*): Use at most this many, as many of each class. A stream is read whole.
        max_eval_samples (`int`, *optional*): Likewise of the images to evaluate on.
    """

    dataset_config: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None

    @property
    def columns(self) -> ColumnOptions:
        """What is said of each split."""
        return ColumnOptions(**{of.name: getattr(self, of.name) for of in fields(ColumnOptions)})
