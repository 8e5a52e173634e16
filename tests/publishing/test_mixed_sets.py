"""Sets in which real images stand beside learned ones, and the real ones may be missing."""

import re
import sys

import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image
from sets import make_set

from hf_lgm import DistilledSet, LabelledImages, select_baseline
from hf_lgm.cli.publish import main as publish
from hf_lgm.distillation.initialization import earlier_set
from hf_lgm.evaluation.baselines import with_source_images
from hf_lgm.evaluation.comparison import compare
from hf_lgm.publishing.figures import _CELL, GAP
from hf_lgm.settings import ProbeProtocol

ROWS = [0, None, 8, None, 16, None]


@pytest.fixture
def mixed(train_images) -> DistilledSet:
    """Of each class its first image of the source, and noise."""
    pixels = make_set().pixels()
    pixels[::2] = train_images.select(torch.tensor(ROWS[::2])).centre_crops(16, 1.0) / 255
    config = {"source": {"dataset": "maker/photos", "license": "cc-by-4.0"}, "backbone": {"name": "maker/net"}}
    return DistilledSet.from_pixels(pixels, [0, 0, 1, 1, 2, 2], train_images.class_names, config, ROWS)


def test_which_are_real(mixed):
    assert (mixed.is_real, mixed.has_real_images, mixed.has_images) == (False, True, True)
    assert mixed.real_rows.tolist() == [True, False] * 3
    assert not make_set().has_real_images and not make_set().real_rows.any()
    baseline = make_set(source_index=range(6))
    assert baseline.is_real and baseline.has_real_images and baseline.without_images().is_real


@pytest.mark.parametrize("include", [False, True])
def test_a_folder_and_back(mixed, train_images, tmp_path, include):
    mixed.to_publish(include).save_pretrained(tmp_path / "set")
    read = DistilledSet.from_pretrained(tmp_path / "set")
    assert read.has_images is include and read.dataset["source_index"][:] == ROWS and not read.is_real
    assert read.missing_rows.tolist() == ([] if include else [0, 2, 4])
    rows = load_dataset(str(tmp_path / "set"), split="train")
    assert rows.features == mixed.dataset.features and rows["source_index"][:] == ROWS
    assert [image is None for image in rows["image"]] == [not include, False] * 3
    rebuilt = with_source_images(read, train_images)
    assert rebuilt.fingerprint == mixed.fingerprint and torch.equal(rebuilt.pixels(), mixed.pixels())


def test_the_preview_shows_no_image_that_is_not_here(mixed, tmp_path):
    for name, images in (("whole", mixed), ("published", mixed.to_publish())):
        images.save_pretrained(tmp_path / name)
    whole, published = (Image.open(tmp_path / name / "preview.png").convert("RGB") for name in ("whole", "published"))
    tiles = [(left, GAP, left + _CELL, GAP + _CELL) for left in range(GAP, 6 * (_CELL + GAP), _CELL + GAP)]
    assert [whole.crop(tile) == published.crop(tile) for tile in tiles] == [False, True] * 3
    assert {colour for _, colour in published.crop(tiles[0]).getcolors()} >= {(255, 255, 255)}
    greys = {colour for tile in tiles[::2] for _, colour in published.crop(tile).getcolors()}
    assert all(red == green == blue for red, green, blue in greys)


def test_the_card_says_which_are_real(mixed, tmp_path):
    published, whole = (DatasetCard.load(images.save_pretrained(tmp_path / name) / "README.md")
                        for name, images in (("a", mixed.to_publish()), ("b", mixed)))  # fmt: skip
    for card in (published, whole):
        for expected in (
            "6 images, 2 of each of the 3 classes of maker/photos: 1 of each class real, and 1 synthetic, made by",
            "**The first image of each class is a real one** of maker/photos, taken as it is; the others were made to",
            "Real ones have a `source_index`, their row in the train split of the source; of the others it is null.",
            "That of the real images: cc-by-4.0.\nThe same is true of the real images in this set.",
            "columns `image`, `label`, `source_index`",
        ):
            assert expected in card.text
        assert card.data.license == "cc-by-4.0" and "synthetic" in card.data.tags
    for expected in (
        "![All 6 images, hatched where a real one is not here](preview.png)",
        "The real images themselves are not here: `image` is null there, and `hf_lgm` rebuilds them from the source",
        "# image is None where it is a real one",
        'train = load_dataset("maker/photos", split="train")\n'
        "distilled = with_source_images(distilled, LabelledImages.from_dataset(train))",
    ):
        assert expected in published.text and expected not in whole.text
    assert "a real one" not in DatasetCard.load(make_set().save_pretrained(tmp_path / "c") / "README.md").text


def test_the_code_of_the_card_runs_on_what_is_published(mixed, splits, model_folder, tmp_path, monkeypatch, capsys):
    splits.save_to_disk(tmp_path / "photos")
    folder = mixed.to_publish().save_pretrained(tmp_path / "set", repo_id=str(tmp_path / "set"))
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    of_set = load_dataset
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, split: splits[split] if name == "maker/photos" else of_set(name)[split]
    )
    exec(code.replace("maker/net", model_folder), {})
    assert re.search(r"\d+\.\d ± \d+\.\d %", capsys.readouterr().out)


def test_a_table_rebuilds_them_and_its_figure_shows_what_was_learned(
    mixed, backbone, splits, train_images, tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setattr("hf_lgm.evaluation.table.save_comparison", lambda rows, *others: shown.extend(rows))
    eval_images = LabelledImages.from_dataset(splits["test"])
    comparison = compare(
        {"mixed": mixed.to_publish()}, [backbone], train_images, eval_images, baselines=[], references=[],
        protocol=ProbeProtocol(epochs=2, seeds=1),
    )  # fmt: skip
    assert comparison.sets["mixed"].fingerprint == mixed.fingerprint
    comparison.save_figure(tmp_path / "comparison.png", ["tiny-dinov2"])
    for image, row in zip(shown[0].images, (1, 3, 5), strict=True):
        assert image.tobytes() == mixed.dataset[row]["image"].tobytes()


def test_neighbours_of_a_set_without_its_real_images(mixed, backbone, train_images):
    near = [
        select_baseline("neighbor", backbone, train_images, neighbors_of=images).dataset["source_index"][:]
        for images in (mixed, mixed.to_publish())
    ]
    assert near[0] == near[1]


def test_a_run_may_begin_with_what_is_here(mixed, tmp_path):
    folder = str(mixed.to_publish().save_pretrained(tmp_path / "set"))
    begun = earlier_set(folder, mixed.class_names, 1)
    assert torch.equal(begun.pixels(), mixed.pixels()[1::2]) and not begun.has_real_images
    with pytest.raises(ValueError, match="has rows of real images and not the images themselves"):
        earlier_set(folder, mixed.class_names, 2)


@pytest.mark.parametrize("flags", [[], ["--include_source_images", "true"]])
def test_what_the_script_lets_see_is_what_it_would_publish(mixed, tmp_path, monkeypatch, flags):
    mixed.save_pretrained(tmp_path / "out")
    typed = ["publish.py", "--folder", str(tmp_path / "out"), "--output_dir", str(tmp_path / "look"), *flags]
    monkeypatch.setattr(sys, "argv", typed)
    publish()
    assert DistilledSet.from_pretrained(tmp_path / "look").has_images is bool(flags)


def test_an_image_is_missing_only_where_its_row_is_known(mixed, tmp_path):
    images = [None, *mixed.dataset["image"][1:]]
    for name, rows in (("known", ROWS), ("unknown", [None] * 6)):
        changed = mixed.dataset.remove_columns("source_index").add_column("source_index", rows)
        written = DistilledSet(changed.cast_column("source_index", mixed.dataset.features["source_index"]))
        written.with_images(images).save_pretrained(tmp_path / name)
    assert DistilledSet.from_pretrained(tmp_path / "known").missing_rows.tolist() == [0]
    with pytest.raises(ValueError, match="row 0, image: expected an image, or a source_index that says which"):
        DistilledSet.from_pretrained(tmp_path / "unknown")
