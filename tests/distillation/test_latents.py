import json

import pytest
import torch
from conftest import SIDE, make_dataset
from diffusers import AutoencoderKL, AutoencoderTiny

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.distillation.latents import LatentImages, load_autoencoder


def make_autoencoder(kind, blocks=2):
    torch.manual_seed(0)
    widths = (8,) * blocks
    if kind == "tiny":
        depths = (1,) * blocks
        return AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=depths,
            num_decoder_blocks=depths,
        )
    down, up = ("DownEncoderBlock2D",) * blocks, ("UpDecoderBlock2D",) * blocks
    return AutoencoderKL(
        block_out_channels=widths, down_block_types=down, up_block_types=up, norm_num_groups=2, shift_factor=0.1
    )


@pytest.fixture(params=["tiny", "kl"])
def folder(request, tmp_path):
    """An autoencoder of random weights, as a repository holds it."""
    make_autoencoder(request.param).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def make(backbone, folder, out, **settings):
    settings = {"max_steps": 6, "views_per_step": 2, "save_steps": 3, "disable_tqdm": True, **settings}
    args = LGMConfig(str(out), parameterization="latent", vae=str(folder), **settings)
    return LGMDistiller(backbone, args, make_dataset())


def test_images_are_what_the_autoencoder_draws(folder):
    autoencoder = load_autoencoder(str(folder))
    images = LatentImages(range(3), SIDE, 0, autoencoder)
    assert [tuple(level.shape) for level in images.levels] == [(3, 4, SIDE // 2, SIDE // 2)]
    scale, shift = autoencoder.config.scaling_factor, autoencoder.config.get("shift_factor") or 0.0
    expected = autoencoder.decode(images.levels[0].detach() / scale + shift).sample.mul(0.5).add(0.5).clamp(0, 1)
    torch.testing.assert_close(images(), expected)


def test_the_gradient_of_latents_is_autograds_in_groups_of_any_size(folder, monkeypatch):
    images = LatentImages(range(3), SIDE, 0, load_autoencoder(str(folder)).double()).double()
    target = torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64)
    latents = images.levels[0].detach().clone().requires_grad_()
    (images._decode(latents) * target).sum().backward()
    for group in (8, 2):
        monkeypatch.setattr("hf_lgm.distillation.latents._DECODED", group)
        images.zero_grad()
        (images() * target).sum().backward()
        assert latents.grad.abs().max() > 1e-6
        torch.testing.assert_close(images.levels[0].grad, latents.grad, rtol=0, atol=1e-12)
    assert all(parameter.grad is None for parameter in images.autoencoder.parameters())


def test_other_sizes_are_drawn_larger_and_resized(tmp_path):
    make_autoencoder("tiny", blocks=3).save_pretrained(tmp_path / "vae")
    images = LatentImages(range(2), 18, 0, load_autoencoder(str(tmp_path / "vae")))
    assert images.levels[0].shape[-1] == 5 and images().shape == (2, 3, 18, 18)  # drawn at 20


def test_a_start_is_encoded(folder):
    autoencoder = load_autoencoder(str(folder))
    images = LatentImages(range(2), SIDE, 0, autoencoder)
    pictures = torch.rand(2, 3, SIDE, SIDE)
    images.start_from(pictures)
    output = autoencoder.encode(pictures * 2 - 1)
    found = output.latents if hasattr(output, "latents") else output.latent_dist.mode()
    scale, shift = autoencoder.config.scaling_factor, autoencoder.config.get("shift_factor") or 0.0
    torch.testing.assert_close(images.levels[0].detach(), (found - shift) * scale)


def test_they_are_distilled_resumed_and_named(backbone, folder, tmp_path):
    whole, broken = make(backbone, folder, tmp_path / "whole"), make(backbone, folder, tmp_path / "broken")
    whole.train(), broken.train()
    resumed = make(backbone, folder, tmp_path / "broken")
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert torch.equal(resumed.images.levels[0], whole.images.levels[0])
    card = (whole.save_model() / "README.md").read_text()
    assert "`vae=vae`" in card and "cazenavette2023glad" in card and str(tmp_path) not in card
    make_autoencoder("tiny", blocks=3).save_pretrained(folder)
    with pytest.raises(ValueError, match="made with other settings: autoencoder="):
        make(backbone, folder, tmp_path / "broken").train(resume_from_checkpoint=True)


def test_the_loss_falls(backbone, folder, tmp_path):
    alone = {"init": "noise", "objective": "lgm", "layers": 0, "view_sizes": []}
    settings = {"max_steps": 60, "learning_rate": 0.1, "save_strategy": "no", **alone}
    distiller = make(backbone, folder, tmp_path / "out", **settings)
    distiller.train()
    losses = [log["loss"] for log in distiller.state.log_history]
    assert losses[-1] < 0.9 * losses[0]


def test_a_pipeline_has_one(folder, tmp_path):
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", kind]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert type(load_autoencoder(str(tmp_path))).__name__ == kind


def test_what_is_no_autoencoder(model_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="^vae: there is no folder"):
        load_autoencoder(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="Expected an AutoencoderKL or AutoencoderTiny"):
        load_autoencoder(model_folder)
    with pytest.raises(OSError, match="user/nothing"):
        load_autoencoder("user/nothing")
    with pytest.raises(ValueError, match="parameterization='latent' and vae belong together"):
        LGMConfig(str(tmp_path), vae="user/vae")
    with pytest.raises(ValueError, match="parameterization='latent' and vae belong together"):
        LGMConfig(str(tmp_path), parameterization="latent")


@pytest.mark.parametrize(
    "statistics",
    [
        {"scaling_factor": 0.18215},
        {"scaling_factor": 0.3611, "shift_factor": 0.1159},
        {"scaling_factor": 0.5, "latents_mean": [-1.6, 0.2, -0.7, -0.9], "latents_std": [8.4, 6.1, 5.8, 4.5]},
        {"scaling_factor": 0.5, "latents_std": [8.4, 6.1, 5.8, 4.5]},
    ],
    ids=str,
)
def test_latents_are_those_of_a_diffusion_pipeline(tmp_path, statistics):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=2, latent_channels=4, **blocks, **statistics)
    vae.save_pretrained(tmp_path / "vae")
    autoencoder = load_autoencoder(str(tmp_path / "vae"))
    images, pixels = LatentImages(range(2), SIDE, 0, autoencoder), torch.rand(2, 3, SIDE, SIDE)
    images.start_from(pixels)
    with torch.no_grad():
        raw = autoencoder.encode(pixels * 2 - 1).latent_dist.mode()
    # as the pipelines of diffusers do it: (latents - mean) * scaling_factor / std
    mean = torch.tensor(statistics.get("latents_mean", statistics.get("shift_factor", 0.0))).view(-1, 1, 1)
    std = torch.tensor(statistics.get("latents_std", 1.0)).view(-1, 1, 1)
    torch.testing.assert_close(images.levels[0].detach(), (raw - mean) * statistics["scaling_factor"] / std)
    with torch.no_grad():
        drawn = (autoencoder.decode(raw).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images().detach(), drawn, rtol=0, atol=1e-5)


def test_a_moved_autoencoder_is_the_same_one(backbone, folder, tmp_path):
    def fingerprint(where):
        return make(backbone, where, tmp_path / "out").start.identity()["autoencoder"]

    before = fingerprint(folder)
    folder.rename(tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == before
    other = make_autoencoder("tiny")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "other")
    assert fingerprint(tmp_path / "other") != before
