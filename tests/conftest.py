"""Small real models and datasets; every cache in a temporary folder, no Hub."""

import os
import tempfile
from pathlib import Path

# Whatever a developer has set for work of their own: tests are the same without.
_FOREIGN = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_", "DATASETS_", "ACCELERATE_", "WANDB_", "TORCH")
_LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
if "HF_LGM_TESTS" not in os.environ:  # not in a process that a test has launched, which imports this too
    for _name in [name for name in os.environ if name.startswith(_FOREIGN) or name in _LAUNCH]:
        del os.environ[_name]
    os.environ["HF_LGM_TESTS"] = "1"

# Read at import by huggingface_hub, datasets and transformers, so before any of them; children inherit them.
_CACHE = tempfile.TemporaryDirectory(prefix="hf_lgm_tests_")
os.environ["HF_HOME"] = _CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Read by torch: threads on small tensors mostly wait for each other, and each core has its process of tests.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image  # noqa: E402
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model, ViTConfig, ViTModel  # noqa: E402

from hf_lgm import FrozenBackbone, LabelledImages, Preprocessing  # noqa: E402
from hf_lgm.data.images import to_images  # noqa: E402

ROOT = Path(__file__).parent.parent
SIDE = 16


def make_dataset(per_class: int = 8, classes: int = 3, seed: int = 0, side: int = SIDE) -> Dataset:
    """Noise on a colour of its own for each class."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(classes, 3, 1, 1, generator=torch.Generator().manual_seed(7))
    labels = [label for label in range(classes) for _ in range(per_class)]
    pixels = colours[labels] + 0.2 * torch.randn(len(labels), 3, side, side, generator=generator)
    features = Features({"image": Image(), "label": ClassLabel(names=[f"class {label}" for label in range(classes)])})
    return Dataset.from_dict({"image": to_images(pixels), "label": labels}, features=features)


def make_vit(seed: int = 0) -> Dinov2Model:
    """A one-layer DINOv2 with random weights."""
    torch.manual_seed(seed)
    config = Dinov2Config(image_size=SIDE, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    return Dinov2Model(config)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> str:
    """The same, saved as a user would find it: weights, configuration, image processor."""
    folder = tmp_path_factory.mktemp("models") / "tiny-dinov2"
    make_vit().save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory) -> str:
    """Images in folders per class, a train and a test split, as a user would have them."""
    folder = tmp_path_factory.mktemp("data") / "colours"
    for split, seed in (("train", 0), ("test", 1)):
        dataset = make_dataset(seed=seed)
        for row, example in enumerate(dataset):
            path = folder / split / dataset.features["label"].int2str(example["label"])
            path.mkdir(parents=True, exist_ok=True)
            example["image"].save(path / f"{row}.png")
    return str(folder)


@pytest.fixture
def backbone() -> FrozenBackbone:
    """The one-layer DINOv2."""
    return FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE, resize_ratio=1.0), name="tiny-dinov2")


@pytest.fixture
def deep() -> FrozenBackbone:
    """A ViT of several blocks, and so with layers, in float64."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=SIDE, patch_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    preprocessing = Preprocessing(SIDE, resize_ratio=1.0)
    return FrozenBackbone(ViTModel(config, add_pooling_layer=False), preprocessing, name="deep").double()


@pytest.fixture
def splits() -> DatasetDict:
    """Train and test images of three classes."""
    return DatasetDict(train=make_dataset(seed=0), test=make_dataset(seed=1))


@pytest.fixture
def train_images(splits) -> LabelledImages:
    """The train images."""
    return LabelledImages.from_dataset(splits["train"])


@pytest.fixture(autouse=True)
def fresh_feature_cache(tmp_path, monkeypatch) -> None:
    """No test sees another one's features."""
    monkeypatch.setattr("hf_lgm.features.cache.cached_assets_path", lambda *parts: tmp_path / "features")
