"""Images of one channel: what they are, and runs that make them."""

import json

import pytest
import torch
from conftest import SIDE, make_dataset
from datasets import Dataset
from test_latents import make_autoencoder

from hf_lgm import DistilledSet, LGMConfig, LGMDistiller, StreamEncoder
from hf_lgm.distillation.synthetic import SyntheticImages


def grey_dataset():
    colours = make_dataset()
    images = [image.convert("L") for image in colours["image"][:]]
    return Dataset.from_dict({"image": images, "label": colours["label"][:]}, features=colours.features)


@pytest.fixture
def make(backbone, tmp_path):
    """A distiller of a few small steps, of grey data; settings on top."""

    def distiller(folder="out", data=None, **settings):
        settings = {"max_steps": 12, "views_per_step": 2, "save_steps": 4, "disable_tqdm": True, **settings}
        return LGMDistiller(backbone, LGMConfig(str(tmp_path / folder), **settings), data or grey_dataset())

    return distiller


def assert_grey(pixels):
    assert torch.equal(pixels[:, :1].expand_as(pixels), pixels)


def test_red_green_and_blue_are_the_same():
    images = SyntheticImages(range(2), 24, seed=0, channels=1)
    images.set_num_levels(len(images.sides))
    assert all(level.shape[1] == 1 for level in images.levels)
    assert images().shape == (2, 3, 24, 24)
    assert_grey(images())


def test_a_unit_is_about_as_bright_as_one_of_the_first_channel_of_colour():
    grey, colour = (SyntheticImages([0], 1, seed=0, channels=channels) for channels in (1, 3))
    with torch.no_grad():
        grey.levels[0].fill_(1.0)
        colour.levels[0].copy_(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))
        assert (grey() - colour()).abs().max() < 0.01


@pytest.mark.parametrize("sides", [None, [6]])
def test_the_gradient_is_that_of_finite_differences(sides):
    images = SyntheticImages(range(2), 6, seed=0, sides=sides, channels=1).double()
    images.set_num_levels(len(images.sides))
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss():
        return (weights * images()).sum()

    loss().backward()
    step = 1e-5
    for level in images.levels:
        numbers, gradient = level.data.view(-1), level.grad.view(-1)
        for place in range(0, len(numbers), 3):
            with torch.no_grad():
                numbers[place] += step
                above = loss()
                numbers[place] -= 2 * step
                below = loss()
                numbers[place] += step
            assert abs((above - below) / (2 * step) - gradient[place]) < 1e-8


@pytest.mark.parametrize("sides", [None, [24]])
def test_starting_from_grey_images_gives_these_images(sides):
    given = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0)).expand(2, 3, 24, 24).clone()
    given[0, :, :4], given[0, :, -4:] = 0, 1  # black and white have no logit
    images = SyntheticImages(range(2), 24, seed=0, sides=sides, channels=1)
    images.start_from(given)
    assert len(images.levels) == len(images.sides)
    assert (images() - given).abs().max() < 1.01 / 255


def test_starting_from_coloured_images_takes_their_luminance():
    given = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = SyntheticImages(range(2), 8, seed=0, channels=1)
    images.start_from(given)
    expected = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), given)  # Rec. 601
    assert (images() - expected[:, None]).abs().max() < 1.01 / 255


@pytest.mark.parametrize("settings", [{}, {"parameterization": "pixel"}, {"init": "centroid"}])
def test_of_grey_data_grey_images_also_when_resumed(make, settings):
    whole, broken = make("whole", **settings), make("broken", **settings)
    whole.train(), broken.train()
    resumed = make("broken", **settings)
    resumed.train(resume_from_checkpoint=f"{resumed.args.output_dir}/checkpoint-8")
    assert whole.images.channels == 1
    assert_grey(whole.images())
    assert torch.equal(resumed.images(), whole.images())
    folder = whole.save_model()
    said = json.loads((folder / "lgm_config.json").read_text())
    assert said["settings"]["channels"] == 1 and "channels" not in said["changed_settings"]
    saved = DistilledSet.from_pretrained(folder)
    assert {image.mode for image in saved.dataset["image"][:]} == {"RGB"}
    assert_grey(saved.pixels())


def test_what_was_found_is_the_same_run_as_what_is_asked_for(make):
    make(save_steps=12).train()
    again = make(channels=1)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 12
    with pytest.raises(ValueError, match="other settings: channels=1 there, 3 now"):
        make(channels=3).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_before_there_was_a_choice_is_of_coloured_images(make, tmp_path):
    make(channels=3, save_steps=12).train()
    folder = tmp_path / "out" / "checkpoint-12"
    run = json.loads((folder / "run.json").read_text())
    del run["identity"]["channels"], run["has_checksums"]
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "checksums.json").unlink()
    make(channels=3).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="other settings: channels=3 there, 1 now"):
        make().train(resume_from_checkpoint=True)


def test_what_is_asked_for_goes_before_what_is_found(make, caplog):
    with caplog.at_level("INFO", "hf_lgm"):
        assert make(channels=3).images.channels == 3 and make(data=make_dataset(), channels=1).images.channels == 1
        assert make(data=make_dataset()).images.channels == 3 and "grey" not in caplog.text
        assert make().images.channels == 1 and "The real images are grey" in caplog.text
    grey, coloured = (make(channels=channels).learned.bytes_of_checkpoint for channels in (1, 3))
    assert 3 * grey == coloured


def test_of_a_stream_the_kept_images_are_looked_at(make, backbone):
    assert make(data=grey_dataset().to_iterable_dataset()).images.channels == 1
    assert make(data=make_dataset().to_iterable_dataset()).images.channels == 3
    none_kept = StreamEncoder([backbone]).encode(grey_dataset().to_iterable_dataset(), keep_images=False)
    assert make(data=none_kept).images.channels == 3


def test_an_autoencoder_draws_in_colour(make, tmp_path):
    make_autoencoder("tiny").save_pretrained(tmp_path / "vae")
    distiller = make(parameterization="latent", vae=str(tmp_path / "vae"))
    assert distiller.start.settings()["channels"] == 3 and distiller.images().shape == (3, 3, SIDE, SIDE)


def test_processes_do_as_the_first_one_found(make, monkeypatch):
    monkeypatch.setattr("hf_lgm.distillation.initialization.broadcast_object_list", lambda found: [True])
    assert make(data=make_dataset()).images.channels == 1
