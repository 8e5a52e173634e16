"""Every recipe, resolved against a dataset of the same columns, splits and classes, one image in place of many."""

import re

import pytest
import yaml
from conftest import ROOT, make_vit
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from hf_lgm import FrozenBackbone, LGMConfig, Preprocessing
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DEFAULT_DATASET, DataArguments, ModelArguments
from hf_lgm.cli.distill import RunArguments
from hf_lgm.cli.inputs import load_data
from hf_lgm.cli.parsing import default_output_dir, parse_arguments

RECIPES = ROOT / "hf_lgm" / "recipes"
PICTURE = PILImage.new("RGB", (4, 4))
BREEDS = ["bulldog", "corgi", "dachshund", "labrador"]


def split(labels, label=None, **columns):
    """A split with one image for each label; `columns` are (values, type)."""
    features = {"image": Image(), "label": label, **{name: kind for name, (_, kind) in columns.items()}}
    values = {name: data for name, (data, _) in columns.items()}
    return Dataset.from_dict(
        {"image": [PICTURE] * len(labels), "label": labels, **values}, features=Features(features)
    )


def stand_in(classes, *splits, hidden=(), **columns):
    """Splits of so many classes, those in `hidden` without labels."""
    label = ClassLabel(names=[f"name {i}, synonym" for i in range(classes)])
    return DatasetDict(
        {name: split([-1] * 3 if name in hidden else list(range(classes)), label, **columns) for name in splits}
    )


def waterbirds():
    labels, places = [0, 0, 1, 1], [0, 1, 0, 1]
    columns = {"place": (places, Value("int64"))}
    return DatasetDict({name: split(labels, Value("int64"), **columns) for name in ("train", "validation", "test")})


def birds():
    boxes = {"bbox": ([[1.0, 2.0, 3.0, 4.0]] * 200, List(Value("float32")))}
    return stand_in(200, "train", "test", **boxes)


# For each dataset what its page says: splits and columns.
DATASETS = {
    "ILSVRC/imagenet-1k": lambda: stand_in(1000, "train", "validation", "test", hidden=["test"]),
    "clane9/imagenet-100": lambda: stand_in(100, "train", "validation"),
    "dpdl-benchmark/oxford_flowers102": lambda: stand_in(102, "train", "validation", "test"),
    "ethz/food101": lambda: stand_in(101, "train", "validation"),
    "maurice-fp/stanford-dogs": lambda: stand_in(120, "train", "test"),
    "bentrevett/caltech-ucsd-birds-200-2011": birds,
    "zguo0525/ArtBench": lambda: stand_in(10, "train", "test"),
    "grodino/waterbirds": waterbirds,
    "./spawrious-o2o-hard": lambda: DatasetDict(
        {name: split(list(range(4)), ClassLabel(names=BREEDS)) for name in ("train", "test")}
    ),
}
CLASSES = {
    "imagenet-100": 100, "imagenet-100-full": 100, "imagenet-1k": 1000, "flowers-102": 102, "food-101": 101,
    "stanford-dogs": 120, "cub-200": 200, "artbench": 10, "waterbirds": 2, "spawrious": 4,
    **{f"imagenet-{name}": 10 for name in ("birds", "fruits", "cats", "imagenette", "imagewoof", *"abcde")},
}  # fmt: skip
PROTOCOLS = {"demo", "features-alone", "paper"}  # of no dataset, or of one that needs no network


def parse(*flags):
    types = (ModelArguments, DataArguments, LGMArguments)
    return parse_arguments(types, "", ["--model", "user/model", *map(str, flags)])


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*CLASSES, *PROTOCOLS}


@pytest.mark.parametrize("name", sorted([*CLASSES, *PROTOCOLS]))
def test_a_recipe_says_whether_it_was_run(name):
    assert (RECIPES / f"{name}.yaml").read_text().startswith(("# Run by us. ", "# Not run by us. "))


@pytest.mark.parametrize("name", CLASSES)
def test_a_recipe_resolves(name, monkeypatch):
    _, data_args, args = parse("--config", RECIPES / f"{name}.yaml")
    asked = []
    monkeypatch.setattr(
        "hf_lgm.data.loading.load_splits", lambda dataset, *rest: asked.append((dataset, *rest)) or DATASETS[dataset]()
    )
    backbone = FrozenBackbone(make_vit(), Preprocessing(image_size=16))
    train, evaluation = load_data(data_args, data_args.dataset, [backbone], args)
    assert asked == [(data_args.dataset, None, None)]
    assert train.num_classes == evaluation.num_classes == CLASSES[name]
    assert set(train.labels.tolist()) == set(evaluation.labels.tolist()) == set(range(CLASSES[name]))
    assert (evaluation.group_names == ["0", "1"]) == (name == "waterbirds")
    assert len(set(data_args.classes)) == len(data_args.classes)
    assert data_args.name_of(data_args.dataset) == name


def test_images_of_a_subset_are_those_of_its_classes(monkeypatch):
    monkeypatch.setattr("hf_lgm.data.loading.load_splits", lambda dataset, *rest: DATASETS[dataset]())
    _, data_args, args = parse("--config", RECIPES / "imagenet-birds.yaml")
    train, _ = load_data(data_args, data_args.dataset, [], args)
    assert train.class_names[:2] == ["name 84, synonym", "name 130, synonym"]  # peacock, flamingo
    assert train.rows[train.labels == 0].tolist() == [84]


def test_recipes_are_stacked_and_flags_go_before_them():
    configs = [RECIPES / "paper.yaml", RECIPES / "food-101.yaml"]
    _, data_args, args = parse("--config", *configs, "--max_steps", "7")
    assert data_args.dataset == "ethz/food101" and args.real_features == "online" and args.max_steps == 7
    assert default_output_dir(data_args.name_of(data_args.dataset), "lgm", ["user/model"], 1).startswith(
        "outputs/food-101-"
    )


@pytest.mark.parametrize(
    "flags", [("--config", RECIPES / "paper.yaml"), ("--preset", "paper")], ids=["recipe", "preset"]
)
def test_the_papers_recipe_is_its_preset_and_what_the_page_says(flags):
    """Of every model too: each `name: value` on the page is the recipe's."""
    models, args, _ = parse_arguments((ModelArguments, LGMArguments, RunArguments), "", list(map(str, flags)))
    assert LGMConfig(**vars(args)).own_settings() == LGMConfig.paper().own_settings()
    assert (models.image_mean, models.image_std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    said = re.findall(r"`(\w+): ([\w.]+)`", (ROOT / "docs" / "paper.md").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((RECIPES / "paper.yaml").read_text())
    assert len(said) >= 6 and all(recipe[name] == yaml.safe_load(value) for name, value in said)


def test_the_default_dataset_is_a_recipe():
    _, data_args, _ = parse("--config", RECIPES / "imagenet-100.yaml")
    assert data_args.dataset == DEFAULT_DATASET
