"""With the paper's settings the distiller's steps are those of the paper, written out a second time."""

import copy

import pytest
import torch
from conftest import SIDE, make_vit
from datasets import ClassLabel, Dataset, Features, Image
from oracle import Oracle
from torch import nn
from transformers import TrainerCallback

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.data.images import to_images

STEPS, GROWTH_STEPS, VIEWS, SEED = 26, 5, 2, 3


class SmallConvNet(nn.Module):
    """Two convolutions; a map of features."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Conv2d(8, 12, 3, stride=2), nn.GELU())

    def forward(self, pixel_values):
        return self.layers(pixel_values)


# From normalised images to features, through a model of two families.
FAMILIES = {
    "vit": (make_vit, lambda model: lambda x: model(pixel_values=x).last_hidden_state[:, 0]),
    "convnet": (SmallConvNet, lambda model: lambda x: model(x).mean(dim=(2, 3))),
}


class Keep(TrainerCallback):
    """The gradients on the levels, of every step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.gradients.append([level.grad.clone() for level in model.levels])


class KeepLosses(LGMDistiller):
    """The loss of every step."""

    def training_step(self, step, real):
        self.losses = [*getattr(self, "losses", []), super().training_step(step, real)]
        return self.losses[-1]


def real_images(width=SIDE + 5):
    """Twenty images of three classes, wider than high, so that they are cropped."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (20, 3, SIDE, width), generator=generator).to(torch.uint8), torch.arange(20) % 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_update(family, tmp_path):
    """Over all growths, with a new real batch in each step."""
    make, encoder = FAMILIES[family]
    model = make().double().eval()
    pixels, labels = real_images()
    oracle = Oracle(encoder(copy.deepcopy(model)), pixels, labels, SIDE, VIEWS, GROWTH_STEPS, SEED)

    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    dataset = Dataset.from_dict({"image": to_images(pixels / 255), "label": labels.tolist()}, features=features)
    args = LGMConfig.paper(
        output_dir=str(tmp_path), max_steps=STEPS, growth_steps=GROWTH_STEPS, views_per_step=VIEWS, seed=SEED,
        save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    keep, backbone = Keep(), FrozenBackbone(model, Preprocessing(SIDE, resize_ratio=1.0)).double()
    distiller = KeepLosses(backbone, args, dataset, callbacks=[keep])
    distiller.train()

    for step in range(STEPS):
        loss, gradients = oracle.step()
        torch.testing.assert_close(distiller.losses[step], loss, rtol=0, atol=1e-12)
        torch.testing.assert_close(keep.gradients[step], gradients, rtol=0, atol=1e-11)
    assert [len(gradients) for gradients in keep.gradients] == [1] * 6 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5
    torch.testing.assert_close([*distiller.images.levels], oracle.levels, rtol=0, atol=1e-9)
