import io
import json

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from datasets import Image as DatasetImage
from huggingface_hub import DatasetCard
from PIL import Image
from sets import NASTY, make_set

from hf_lgm import DistilledSet
from hf_lgm.publishing.files import PUBLISHED_FILES


@pytest.mark.parametrize("source_index", [None, [5, 3, 1, 0, 2, 4]])
def test_a_folder_and_back(tmp_path, source_index):
    written = make_set(config={"settings": {"flip": False, "crop_scale": [0.5, 1.0]}}, source_index=source_index)
    written.results = [{"training_set": "distilled", "backbone": "b", "protocol": "p", "metric": "top-1",
                        "mean": 1.0, "std": 0.5, "n_seeds": 5}]  # fmt: skip
    assert sorted(PUBLISHED_FILES) == sorted(
        str(path.relative_to(tmp_path)) for path in written.save_pretrained(tmp_path).rglob("*") if path.is_file()
    )
    read = DistilledSet.from_pretrained(tmp_path)
    assert torch.equal(read.pixels(), written.pixels())
    assert (read.config, read.results, read.class_names) == (written.config, written.results, written.class_names)
    assert read.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (read.views.flip, read.views.crop_scale) == (False, (0.5, 1.0))
    loaded = load_dataset(str(tmp_path))["train"]
    assert loaded.features == written.dataset.features
    assert loaded.column_names == written.dataset.column_names
    if source_index:
        assert loaded["source_index"][:] == source_index
    assert json.loads((tmp_path / "results.json").read_text()) == written.results


def test_a_set_that_does_not_say_how_it_was_made_says_so(tmp_path, caplog):
    make_set(config={"settings": {}}).save_pretrained(tmp_path)
    DistilledSet.from_pretrained(tmp_path)
    assert caplog.text == ""
    (tmp_path / "lgm_config.json").unlink()
    DistilledSet.from_pretrained(tmp_path)
    assert f"'{tmp_path}' has no lgm_config.json: probes are trained on it with the default views" in caplog.text


@pytest.mark.parametrize(("settings", "bounded"), [({}, True), ({"bounded_crops": False}, False)])
def test_probes_see_the_crops_that_a_set_was_made_with(settings, bounded):
    """Earlier sets do not say, and had bounded ones."""
    assert make_set(config={"settings": settings}).views.bounded_crops is bounded


def test_writing_is_deterministic(tmp_path):
    for name in ("a", "b"):
        make_set().save_pretrained(tmp_path / name / "set")
    for file in PUBLISHED_FILES:
        assert (tmp_path / "a/set" / file).read_bytes() == (tmp_path / "b/set" / file).read_bytes()


def test_class_names_can_not_break_the_card(tmp_path):
    written = make_set(10, 10, class_names=NASTY)
    written.save_pretrained(tmp_path)
    assert load_dataset(str(tmp_path))["train"].features["label"].names == NASTY
    card = DatasetCard.load(tmp_path / "README.md")
    assert card.data.license == "unknown" and "{{" not in card.content and "{%" not in card.content


def test_the_card_tells_what_is_known(tmp_path):
    config = {
        "settings": {"max_steps": 7}, "source": {"dataset": "demo-digits", "license": "cc-by-4.0"},
        "backbone": {"name": "demo-vit"}, "command": "scripts/distill.py", "versions": {"torch": "1"},
    }  # fmt: skip
    written = make_set(config=config)
    row = {"training_set": "distilled", "backbone": "demo | vit", "protocol": "p", "metric": "top-1"}
    written.results = [{**row, "mean": 91.23, "std": 0.51, "n_seeds": 5}]
    written.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    for expected in ("license: cc-by-4.0", "demo-digits in 6 images", "6 synthetic images, 2 of each of the 3 classes",
                     "| | demo \\| vit |", "| **distilled** | **91.2 ± 0.5** |", "`max_steps=7`",
                     "| versions | torch 1 |", "That of the real images: cc-by-4.0."):  # fmt: skip
        assert expected in text


def test_the_preview_stays_under_two_megabytes(tmp_path):
    make_set(1000, 1000, size=40).save_pretrained(tmp_path)
    assert (tmp_path / "preview.png").stat().st_size < 2_000_000
    with Image.open(tmp_path / "preview.png") as preview:
        assert 0.9 < preview.width / preview.height < 1.1


def test_what_is_no_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a distilled set: it has no data/train-00000-of-00001.parquet"):
        DistilledSet.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="DistilledSet: there is no folder './absent'"):
        DistilledSet.from_pretrained("./absent")
    with pytest.raises(OSError, match="The dataset 'user/absent' can't be fetched"):
        DistilledSet.from_pretrained("user/absent")


def stored(folder, rows) -> None:
    """A set whose rows are these."""
    make_set().save_pretrained(folder)
    features = Features(
        {"image": {"bytes": Value("binary"), "path": Value("string")}, "label": ClassLabel(names=["a", "b"])}
    )
    data = Dataset.from_dict({"image": [row[0] for row in rows], "label": [row[1] for row in rows]}, features=features)
    data.cast_column("image", DatasetImage()).to_parquet(folder / "data/train-00000-of-00001.parquet")


def png(side=8) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side)).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            ({"bytes": None, "path": "{private}"}, 1),
            "row 1, image: expected the image itself, found the name of",
        ),
        ((None, 1), "row 1, image: expected an image, or a source_index that says which"),
        (({"bytes": png(), "path": None}, -1), "row 1, label: expected a class, 0 to 1, found -1"),
        (({"bytes": png(), "path": None}, None), "row 1, label: expected a class, 0 to 1, found None"),
        (
            ({"bytes": b"no image", "path": None}, 1),
            "row 1, image: expected an image .* bytes that give Unid",
        ),
        (({"bytes": png(9), "path": None}, 1), "row 1, image: expected 8 x 8 pixels, as in row 0, found 9 x 9"),
    ],
    ids=str,
)
def test_what_a_strangers_set_may_not_hold(tmp_path, second, message):
    (tmp_path / "private.png").write_bytes(png())
    if second[0] and second[0]["path"]:
        second = ({"bytes": None, "path": str(tmp_path / "private.png")}, second[1])
    stored(tmp_path / "set", [({"bytes": png(), "path": None}, 0), second])
    with pytest.raises(ValueError, match=message):
        DistilledSet.from_pretrained(tmp_path / "set")
