"""What a Python user gives a distiller, and what is said of what can't be meant."""

from pathlib import Path

import pytest
import torch
from conftest import make_dataset
from datasets import DatasetDict, concatenate_datasets
from transformers import Dinov2Model, TrainerCallback

from hf_lgm import LGMConfig, LGMDistiller


@pytest.fixture
def make(backbone, splits, tmp_path):
    """A distiller of two small steps; what it is given on top."""

    def distiller(train=None, test=None, model=None, settings=None, **given):
        small = {"max_steps": 2, "views_per_step": 2, "save_strategy": "no", "disable_tqdm": True}
        args = LGMConfig(output_dir=str(tmp_path / "out"), **(small | (settings or {})))
        return LGMDistiller(backbone if model is None else model, args, train or splits["train"], test, **given)

    return distiller


class Count(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def test_callbacks_come_and_go_as_trainers_do(make):
    distiller, stays = make(), Count()
    distiller.add_callback(Count)
    distiller.add_callback(stays)
    popped = distiller.pop_callback(Count)
    assert isinstance(popped, Count) and popped is not stays
    distiller.train()
    assert (popped.steps, stays.steps) == (0, 2)
    distiller.remove_callback(stays)
    assert distiller.pop_callback(Count) is None
    distiller.train()
    assert stays.steps == 2


@pytest.fixture
def photos(splits):
    """Two columns of each type, so that none speaks for itself."""

    def renamed(split):
        named = split.rename_columns({"image": "photo", "label": "kind"})
        other = named.rename_columns({"photo": "mask", "kind": "colour"})
        return concatenate_datasets([named, other], axis=1)

    return {name: renamed(split) for name, split in splits.items()}


@pytest.mark.parametrize("streamed", [False, True])
def test_columns_may_be_named(make, photos, splits, streamed):
    if streamed:
        photos, splits = ({name: of.to_iterable_dataset() for name, of in each.items()} for each in (photos, splits))
    named, plain = make(*photos.values(), image_column_name="photo", label_column_name="kind"), make(*splits.values())
    assert named.train_images.labels.tolist() == plain.train_images.labels.tolist()
    named.train(), plain.train()
    assert torch.equal(named.distilled_set().pixels(), plain.distilled_set().pixels())
    assert named.evaluate() == plain.evaluate()
    code = 'LabelledImages.from_dataset(test, image_column_name="photo", label_column_name="kind")'
    assert code in named.save_model().joinpath("README.md").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"Expected one column of type Image, found 2.*Name one, as in image_column_name='photo'\."),
        ({"image_column_name": "photo"}, r"type ClassLabel, found 2.*Name one, as in label_column_name='kind'\."),
        ({"image_column_name": "picture"}, "image_column_name='picture': there is no such column. Found: colour"),
        ({"image_column_name": "kind"}, "image_column_name='kind' has type ClassLabel: expected Image, paths"),
        (
            {"image_column_name": "photo", "label_column_name": "mask"},
            "label_column_name='mask' has type Image: expected one class per image",
        ),
    ],
)
def test_columns_that_can_not_be_meant(make, photos, given, message):
    with pytest.raises(ValueError, match=message):
        make(photos["train"], **given)


def test_labelled_images_know_their_columns(make, train_images):
    with pytest.raises(ValueError, match="name them in LabelledImages.from_dataset"):
        make(train_images, image_column_name="image")


def test_a_folder_may_be_a_path(make, model_folder):
    assert make(model=Path(model_folder)).backbones[0].name == "tiny-dinov2"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": 42}, TypeError, "Expected as model a Hub id, a folder, a torch.nn.Module or .*, found int"),
        ({"model": [None]}, TypeError, "Expected as model .* found NoneType"),
        ({"model": Dinov2Model}, TypeError, "Expected as model .* found the class Dinov2Model"),
        ({"model": ()}, ValueError, "needs a model to distil through, found an empty list"),
        ({"model": Path("nowhere")}, OSError, "The model 'nowhere' can't be fetched.*Give a local folder as model"),
        ({"model": Path("/nowhere")}, FileNotFoundError, "model: there is no folder '/nowhere'"),
        ({"model": torch.nn.Flatten()}, TypeError, "What does Flatten take.*as processing_class, or wrap it"),
        ({"args": {"max_steps": 1}}, TypeError, "Expected as args an LGMConfig, found dict"),
        ({"train_dataset": "cats"}, TypeError, r"found 'cats': load it, load_dataset\('cats', split='train'\)"),
        ({"train_dataset": DatasetDict(a=make_dataset())}, TypeError, r"one of its splits, such as dataset\['a'\]"),
    ],
)
def test_other_things_than_are_expected_are_named(backbone, splits, given, error, message):
    with pytest.raises(error, match=message):
        LGMDistiller(**{"model": backbone, "train_dataset": splits["train"], **given})
