"""What only a GPU can show; run these where there is one: pytest tests/system/test_gpu.py"""

import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from transformers import TrainerCallback

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.data.augmentation import random_views
from hf_lgm.distillation.checkpoint import Checkpoint
from hf_lgm.settings import ViewSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class RefuseToWait(TrainerCallback):
    """Makes whatever lets the host wait for the device raise, from the second step on."""

    def on_step_begin(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if state.global_step > 0 else "default")

    def on_optimizer_step(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("default")


def train(folder, callbacks=(), double=False, **settings):
    backbone = FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.0))
    settings = {"max_steps": 4, "views_per_step": 3, "logging_steps": 100, "disable_tqdm": True, **settings}
    args = LGMConfig(str(folder), **settings)
    distiller = LGMDistiller(backbone.double() if double else backbone, args, make_dataset(), callbacks=callbacks)
    distiller.train()
    return distiller


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_no_step_waits_for_the_device(tmp_path, chunk_size):
    train(tmp_path, [RefuseToWait()], chunk_size=chunk_size, growth_share=0.0)


def test_bf16_is_the_default_and_leaves_the_callers_model_alone(tmp_path):
    distiller = train(tmp_path)
    assert distiller.args.bf16 and distiller.backbones[0].dtype == torch.bfloat16
    assert distiller.images.levels[0].dtype == torch.float32
    assert train(tmp_path / "fp32", bf16=False).backbones[0].dtype == torch.float32


def test_the_chunk_is_found_and_kept(tmp_path):
    distiller = train(tmp_path, save_steps=2)
    assert distiller.chunk_size == distiller.learned.total
    assert Checkpoint.load(tmp_path / "checkpoint-4").chunk_size == distiller.chunk_size


def test_chunks_give_the_same_images(tmp_path):
    one, many = (train(tmp_path / str(size), double=True, chunk_size=size) for size in (100, 1))
    torch.testing.assert_close(many.images(), one.images(), rtol=0, atol=1e-6)


def test_a_gpu_makes_the_views_that_a_cpu_makes():
    images = torch.rand(2, 3, 20, 20)
    here = random_views(images, [0, 1], 4, 12, ViewSettings(), 0, 0)
    there = random_views(images.cuda(), [0, 1], 4, 12, ViewSettings(), 0, 0)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)


def test_resumed_equals_uninterrupted_nearly(tmp_path):
    """`grid_sample` adds up gradients in any order on a GPU: the same bits are promised on a CPU alone."""
    train(tmp_path / "part", max_steps=2, save_steps=2, bf16=False)
    settings = {"max_steps": 4, "bf16": False, "growth_share": 0.0}
    whole = train(tmp_path / "whole", save_steps=2, **settings)
    resumed = LGMDistiller(
        FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.0)),
        LGMConfig(str(tmp_path / "whole"), views_per_step=3, disable_tqdm=True, **settings),
        make_dataset(),
    )
    resumed.train(tmp_path / "whole" / "checkpoint-2")
    torch.testing.assert_close(resumed.images(), whole.images(), rtol=0, atol=1e-3)
