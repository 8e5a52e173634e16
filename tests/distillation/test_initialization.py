import pytest
import torch
from conftest import SIDE, make_dataset, make_vit

from hf_lgm import (
    DistilledSet,
    FrozenBackbone,
    LabelledImages,
    LGMConfig,
    LGMDistiller,
    Preprocessing,
    select_baseline,
)


def make_set(folder, names=("class 1", "class 0", "class 2"), per_class=2, side=SIDE):
    labels = [label for label in range(len(names)) for _ in range(per_class)]
    pixels = torch.rand(len(labels), 3, side, side, generator=torch.Generator().manual_seed(5))
    DistilledSet.from_pixels(pixels, labels, list(names)).save_pretrained(folder)
    return DistilledSet.from_pretrained(folder)


def make(backbone, tmp_path, init, **settings):
    args = LGMConfig(str(tmp_path / "out"), init=str(init), max_steps=2, disable_tqdm=True, **settings)
    return LGMDistiller(backbone, args, make_dataset())


def test_the_first_images_of_each_class_in_the_classes_order(backbone, tmp_path):
    earlier = make_set(tmp_path / "earlier")
    distiller = make(backbone, tmp_path, tmp_path / "earlier")
    distiller._begin(None)
    torch.testing.assert_close(distiller.images(), earlier.pixels()[[2, 0, 4]], rtol=0, atol=1 / 255)
    distiller.train()
    assert distiller.distilled_set().config["settings"]["init"] == "earlier"  # no path is published


def test_images_of_another_size_are_resized(backbone, tmp_path):
    earlier = make_set(tmp_path / "earlier", side=2 * SIDE)
    distiller = make(backbone, tmp_path, tmp_path / "earlier", images_per_class=2)
    distiller._begin(None)
    means = distiller.images().mean(dim=(2, 3))
    torch.testing.assert_close(means, earlier.pixels()[[2, 3, 0, 1, 4, 5]].mean(dim=(2, 3)), rtol=0, atol=0.02)


def test_another_set_in_the_same_folder_is_not_gone_on_with(backbone, tmp_path):
    make_set(tmp_path / "earlier", per_class=2)
    make(backbone, tmp_path, tmp_path / "earlier", save_steps=1).train()
    make_set(tmp_path / "earlier", per_class=3)
    with pytest.raises(ValueError, match="made with other settings: init_images="):
        make(backbone, tmp_path, tmp_path / "earlier").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("init", "settings", "message"),
    [
        ("earlier", {"images_per_class": 3}, "has 2 image.s. of a class, and 3 of each are"),
        ("others", {}, "init: '.*others' has"),
        ("user/nothing", {}, "can't be fetched|offline"),
    ],
)
def test_what_can_not_be_begun_with(backbone, tmp_path, init, settings, message):
    make_set(tmp_path / "earlier")
    make_set(tmp_path / "others", names=("a", "b", "c"))
    name = init if init == "user/nothing" else tmp_path / init
    with pytest.raises((ValueError, OSError), match=message):
        make(backbone, tmp_path, name, **settings)


def test_a_stream_may_begin_with_a_set(backbone, tmp_path):
    make_set(tmp_path / "earlier")
    args = LGMConfig(str(tmp_path / "out"), init=str(tmp_path / "earlier"), max_steps=1, disable_tqdm=True)
    LGMDistiller(backbone, args, make_dataset().to_iterable_dataset()).train()
    assert isinstance(backbone, FrozenBackbone)


def test_a_set_without_its_images_is_refused_before_anything_else(backbone, splits, tmp_path):
    select_baseline("random", backbone, splits["train"], 1).without_images().save_pretrained(tmp_path / "rows")
    args = LGMConfig(str(tmp_path / "out"), init=str(tmp_path / "rows"))
    with pytest.raises(ValueError, match="rows of real images and not the images themselves"):
        LGMDistiller(backbone, args, splits["train"])


@pytest.mark.parametrize("init", ["centroid", "random"])
def test_a_real_start_is_the_whole_square(init, tmp_path):
    """The backbone's own resize would cut half of each side off."""
    cropping = FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=2.0))
    distiller = make(cropping, tmp_path, init)
    distiller._begin(None)
    real = LabelledImages.from_dataset(make_dataset())
    squares = real.centre_crops(SIDE, 1.0) / 255
    for label, image in enumerate(distiller.images().detach()):
        distance = (squares[real.labels == label] - image).abs().amax(dim=(1, 2, 3))
        assert distance.min() < 0.01


def test_what_images_began_as_is_known_through_all_sets(backbone, tmp_path, train_images):
    def began_as(init, name):
        distiller = make(backbone, tmp_path / name, init)
        distiller.train()
        return distiller.distilled_set().config["began_as"]

    assert began_as("noise", "a") == "noise" and began_as("centroid", "b") == "real"
    for name in ("a", "b"):
        make(backbone, tmp_path / name, "noise" if name == "a" else "centroid", save_strategy="no").save_model()
    assert began_as(tmp_path / "a" / "out", "c") == "noise" and began_as(tmp_path / "b" / "out", "d") == "real"
    select_baseline("centroid", backbone, train_images, 1).save_pretrained(tmp_path / "real")
    assert began_as(tmp_path / "real", "e") == "real"
    make_set(tmp_path / "earlier")
    assert began_as(tmp_path / "earlier", "f") == "unknown"


def test_a_set_itself_is_begun_with_as_its_folder_is(backbone, splits, tmp_path):
    earlier = make_set(tmp_path / "earlier")
    args = LGMConfig(str(tmp_path / "again"), max_steps=2, disable_tqdm=True)
    by_folder = make(backbone, tmp_path, tmp_path / "earlier")
    by_set = LGMDistiller(backbone, args, splits["train"], init=earlier)
    by_folder.train(), by_set.train()
    assert torch.equal(by_set.images(), by_folder.images())
    said = by_set.distilled_set().config
    assert said["settings"]["init"].startswith("DistilledSet ") and "init" in said["changed_settings"]
    assert said["began_as"] == "unknown"
    LGMDistiller(backbone, args, splits["train"], init=earlier).train(resume_from_checkpoint=True)
    other = make_set(tmp_path / "other", per_class=1)
    with pytest.raises(ValueError, match="init='DistilledSet .* there, 'DistilledSet .* now"):
        LGMDistiller(backbone, args, splits["train"], init=other).train(resume_from_checkpoint=True)


def test_a_set_is_given_to_the_distiller(backbone, splits, tmp_path):
    earlier = make_set(tmp_path / "earlier")
    with pytest.raises(ValueError, match="init is a word, a folder or a Hub id here: a set goes to LGMDistiller"):
        LGMConfig(init=earlier)
    with pytest.raises(TypeError, match="Expected as init a DistilledSet, found str: names go into LGMConfig"):
        LGMDistiller(backbone, None, splits["train"], init="noise")
    with pytest.raises(ValueError, match="init: the DistilledSet has 2 image.s. of a class, and 3 of each"):
        LGMDistiller(backbone, LGMConfig(images_per_class=3), splits["train"], init=earlier)
