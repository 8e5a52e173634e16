import torch
from conftest import SIDE
from datasets import ClassLabel, Dataset, Features, Image
from PIL.Image import Resampling

from hf_lgm import LabelledImages
from hf_lgm.data.images import to_images, to_tensor
from hf_lgm.distillation.real_features import _RandomCrops


def test_the_real_batch_is_resized_as_the_papers(backbone):
    """Bilinear, the shorter side to that of the synthetic images, the longer one rounded down; then a crop."""
    pixels = torch.randint(0, 256, (2, 3, 50, 79), generator=torch.Generator().manual_seed(0)) / 255
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict({"image": to_images(pixels), "label": [0, 1]}, features=features)
    crop = _RandomCrops(LabelledImages.from_dataset(dataset), backbone, seed=0)[5, 1]
    resized = to_tensor(to_images(pixels)[1].resize((25, SIDE), Resampling.BILINEAR))
    assert any(torch.equal(crop, resized[:, :, left : left + SIDE]) for left in range(10))
