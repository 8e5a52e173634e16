"""The flags that the commands share: which backbones and which real images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..demo import DEMO_DATASET, DEMO_MODELS
from ..hub import existing_path_or_id, last_part
from ..publishing.licenses import check_license
from ..settings import DataOptions, Pooling
from ..values import check_at_least, check_positive

DEFAULT_DATASET = "clane9/imagenet-100"


@dataclass
class ModelArguments:
    """The backbones.

    Args:
        model (`list[str]`, *optional*): Hub ids, folders, demo-vit or demo-convnext; NAME@SIDE sets the side of the
            images.
        feature_pooling (`str`, *optional*): Of the first --model: cls, pooler, mean, gap or projection; asked of the
            model where not given.
        image_size (`int`, *optional*): Side of the images, for all models; each processor's where not given.
        resize_ratio (`float`, *optional*): Resize of real images before the crop, for all models, those to evaluate on
            too; 1 keeps all of a square image. Each processor's where not given.
        image_mean (`list[float]`, *optional*): Mean of the input in [0, 1], likewise for all models.
        image_std (`list[float]`, *optional*): Standard deviation of the input, likewise for all models.
        revision (`str`, *optional*): Branch, tag or commit of the first --model.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Let code of the models' repositories run.
        strip_prefix (`str`, *optional*): What the names in a checkpoint begin with and should not, such as _orig_mod.
            of a compiled model.
    """

    model: list[str] = field(default_factory=list)
    feature_pooling: Pooling | None = None
    image_size: int | None = None
    resize_ratio: float | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    strip_prefix: str | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "image_size")
        check_positive(self, "image_std")
        check_at_least(self, 1, "resize_ratio")
        for name in self.model:
            check_side(name, "--model")


@dataclass
class ReadingArguments:
    """How images are read, where nothing is distilled; as in [`LGMConfig`].

    Args:
        seed (`int`, *optional*, defaults to 42): Draws samples of the dataset, and a random baseline.
        use_cpu (`bool`, *optional*, defaults to `False`): Use no accelerator.
        per_device_eval_batch_size (`int`, *optional*, defaults to 64): Images per forward pass.
        dataloader_num_workers (`int`, *optional*, defaults to -1): Processes that decode images; -1: as many as cores
            beside a GPU, else none.
    """

    seed: int = 42
    use_cpu: bool = False
    per_device_eval_batch_size: int = 64
    dataloader_num_workers: int = -1

    def __post_init__(self) -> None:
        check_at_least(self, 0, "seed")
        check_at_least(self, 1, "per_device_eval_batch_size")
        check_at_least(self, -1, "dataloader_num_workers")


@dataclass
class LoadingArguments(ReadingArguments):
    """Where files go as well.

    Args:
        output_dir (`str`, *optional*): Where everything is written; where not given a folder under outputs/.
    """

    output_dir: str = ""


@dataclass
class DataArguments(DataOptions):
    """The real images.

    Args:
        dataset (`str`, *optional*): Hub id, or folder of images, parquet or tar files; where not given demo-digits for
            the demo's models, clane9/imagenet-100 for others.
        dataset_name (`str`, *optional*): What folders and cards call the data; the last part of --dataset.
        classes (`list[str]`, *optional*): Names or numbers of the classes to use; all where not given.
        streaming (`bool`, *optional*, defaults to `False`): Read each split once; of its images a few are stored, for
            the table.
        license (`str`, *optional*): Licence of the data, for the card, such as cc-by-4.0.
        license_name (`str`, *optional*): Its name, where --license is other.
        license_link (`str`, *optional*): Its address, where --license is other.
    """

    dataset: str | None = None
    dataset_name: str | None = None
    classes: list[str] = field(default_factory=list)  # as flags are parsed
    streaming: bool = False
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "max_train_samples", "max_eval_samples")
        check_license(self.license, self.license_name, self.license_link)

    def choose(self, models: Sequence[str]) -> str:
        """The dataset to use: the digits go with the demo's backbones.

        Raises:
            ValueError: If a dataset is given without a backbone.
        """
        if self.dataset is None:
            names = {model.partition("@")[0] for model in models}
            return DEMO_DATASET if names <= set(DEMO_MODELS) else DEFAULT_DATASET
        if not models:
            raise ValueError(
                "--dataset needs a --model to see it through: a folder, or a Hub id such as facebook/dinov2-base."
            )
        existing_path_or_id(self.dataset, "--dataset")  # before a backbone is downloaded
        return self.dataset

    def name_of(self, dataset: str) -> str:
        """What folders and cards call it."""
        return self.dataset_name or last_part(dataset)


def check_side(model: str, flag: str) -> None:
    """Refuse what stands behind the @ of a backbone's name, unless it is the side of images.

    Raises:
        ValueError: If it is something else.
    """
    _, at, side = model.partition("@")
    if at and not (side.isdecimal() and int(side)):
        raise ValueError(
            f"{flag} takes NAME@SIDE, as in {DEMO_MODELS[0]}@64, found '{model}'; a branch or commit is given by "
            "--revision."
        )
