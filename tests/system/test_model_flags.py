"""What the flags of models reach."""

import pytest
import torch

from hf_lgm.cli.arguments import ModelArguments
from hf_lgm.cli.inputs import load_backbones, load_each


@pytest.fixture
def given(model_folder, tmp_path):
    """Two models, and flags for them."""
    copy = tmp_path / "copy"
    copy.symlink_to(model_folder)
    flags = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resize_ratio": 1.25}
    return ModelArguments(model=[model_folder, str(copy)], feature_pooling="mean", **flags)


def check(backbones):
    for backbone in backbones:
        torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
        torch.testing.assert_close(backbone.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
        assert backbone.preprocessing.resize_ratio == 1.25
    assert [backbone.pooling for backbone in backbones] == ["mean", "pooler"]  # which only the first is asked for


def test_statistics_and_resize_reach_every_model(given):
    """Those that images are made through, those that are only evaluated on, and all of a table."""
    first, second = given.model
    check(load_backbones(given, [first, second]))
    check(load_backbones(given, [first], also=[second]))
    check(load_each(given, [first, second])[0])
