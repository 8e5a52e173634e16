"""What the card of a set says, and that nothing in a name can break it."""

import pytest
import yaml
from huggingface_hub import DatasetCard
from sets import NASTY
from strangers import INFO

from hf_lgm.publishing.card import render_set_card


def row(training_set, backbone, mean, metric="top-1"):
    numbers = {"mean": mean, "std": 1.0, "n_seeds": 5}
    return {"training_set": training_set, "backbone": backbone, "protocol": "p", "metric": metric, **numbers}


def render(config=None, results=(), **facts):
    return render_set_card({"dataset_info": {**INFO, **facts}, **(config or {})}, list(results), "user/set")


@pytest.mark.parametrize("name", NASTY)
def test_names_can_not_break_it(name):
    config = {
        "source": {"dataset": name, "name": name, "license_name": name, "license": "other"},
        "backbone": {"name": name, "architecture": "Net"},
        "training_set": name,
    }
    card = DatasetCard(render(config, [row(name, name, 50.0), row("random real images", name, 60.0)]))
    assert card.data.pretty_name == " ".join(f"{name}, distilled through {name}".split())
    tables = [line for line in card.text.splitlines() if line.startswith("|") and "|---" not in line]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3}
    assert len([line for line in card.text.splitlines() if line.startswith("#")]) == 7
    body = card.text.split("```python")[0] + card.text.split("## Results")[1]
    assert "<b>" not in body and "**bold**" not in body


def test_warnings():
    results = [
        row("distilled", "own", 60.0),
        row("random real images", "own", 30.0),
        row("nearest class mean", "own", 64.0),
        row("distilled", "other", 20.0),
        row("random real images", "other", 30.0),
        row("nearest class mean", "other", 60.5),
    ]
    central = [row("centroid real images", "own", 65.0), row("centroid real images", "other", 19.0)]
    assert "own as many centroid real images are worth more, 65.0 against 60.0 %" in render(
        None, [*results, *central], num_examples=3
    )
    text = render(None, results, num_examples=3)
    assert "Through other as many random real images are worth more, 30.0 against 20.0 %: use those there." in text
    assert "nearest class mean of all real images is ahead of them, by 40.5 points through other: where" in text
    assert "through own" not in text.lower()


def test_how_it_was_made():
    config = {
        "settings": {"max_steps": 7, "learning_rate": 0.02, "init": "centroid", "seed": 5},
        "changed_settings": ["max_steps", "init"],
        "source": {
            "dataset": "maker/photos",
            "revision": "0123456789abcdef",
            "num_images": 12345,
            "license": "mit",
            "license_declared_by": "source",
        },
        "backbone": {"name": "maker/dinov2-net", "revision": "fedcba9876543210", "pooling": "cls", "image_size": 224},
        "run": {"steps": 7, "seconds": 12.3, "device": "cpu", "processes": 2},
        "versions": {"torch": "1.2"},
        "command": "accelerate launch scripts/distill.py --model maker/dinov2-net",
    }
    text = render(config)
    for expected in (
        "| other than the defaults | `max_steps=7`, `init=centroid` |",
        "| seed | 5 |",
        "[maker/photos](https://huggingface.co/datasets/maker/photos) at `0123456789ab`, 12,345 of them",
        "[maker/dinov2-net](https://huggingface.co/maker/dinov2-net) at `fedcba987654`, cls features, 224 x 224",
        "7 steps in 12 s on 2 cpu process(es)",
        "**The images began as real ones** (`init=centroid`)",
        "That of the real images: mit, declared by the source repository, not verified.",
        "oquab2023dinov2",
        "accelerate launch scripts/distill.py --model maker/dinov2-net",
        'load_dataset("maker/photos", split="test")',
    ):
        assert expected in text, expected
    data = yaml.safe_load(text.split("---")[1])
    assert data["source_datasets"] == ["maker/photos"] and data["license"] == "mit"


@pytest.mark.parametrize(
    ("init", "began_as", "expected"),
    [
        ("noise", None, None),
        ("noise", "noise", None),
        ("centroid", "real", "**The images began as real ones** (`init=centroid`), of which traces may be left."),
        ("user/set", "real", "earlier set (`init=user/set`), which **began as real images**, of which traces may be"),
        ("user/set", "noise", "The images began as those of an earlier set (`init=user/set`), which began as noise."),
        (
            "user/set",
            None,
            "(`init=user/set`), which does not say what it began as: traces of real images may be left.",
        ),
    ],
)
def test_what_the_images_began_as(init, began_as, expected):
    config = {"settings": {"init": init}, **({"began_as": began_as} if began_as else {})}
    lines = [line for line in render(config).splitlines() if "began as" in line]
    assert (expected in lines[0] and len(lines) == 1) if expected else not lines
    assert "`lgm_config.json` has all settings." in render(config).splitlines()


def test_images_that_were_mixed_with_real_ones_on_the_way_say_so():
    text = render({"settings": {"init": "centroid", "init_weight": 0.5}, "began_as": "real"})
    assert "and were mixed with these again on the way (`init_weight=0.5`): they resemble them." in text


def test_the_snippet_knows_another_image_size_and_columns():
    config = {
        "source": {
            "dataset": "maker/photos",
            "label_column_name": "fine",
            "has_selected_classes": True,
            "config": "big",
        },
        "backbone": {"name": "maker/net@96", "resize_ratio": 1.0},
    }
    snippet = render(config).split("```python")[1].split("```")[0]
    compile(snippet, "card", "exec")
    assert len(snippet.strip().splitlines()) <= 15
    for expected in (
        "from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, evaluate_probe",
        'load_dataset("maker/photos", "big", split="test")',
        'test = LabelledImages.from_dataset(test, label_column_name="fine", classes=distilled.class_names)',
        'FrozenBackbone.from_pretrained("maker/net", image_size=96, resize_ratio=1.0)',
    ):
        assert expected in snippet, expected


def test_what_is_not_known_is_not_invented():
    text = render()
    data = yaml.safe_load(text.split("---")[1])
    assert data["license"] == "unknown" and "source_datasets" not in data
    assert "Not evaluated." in text and "Unknown: nothing that was used says under which licence" in text


@pytest.mark.parametrize(
    ("objective", "said"),
    [("lgm", "through own.\n"), ("my_loss", "through own, by an objective of its maker's own, `my_loss`.\n")],
)
def test_an_objective_of_ones_own_is_no_gradient_matching_alone(objective, said):
    card = render({"settings": {"objective": objective}, "backbone": {"name": "own"}}, num_examples=3)
    assert f"[Linear Gradient Matching](https://arxiv.org/abs/2511.16674) {said}" in card
