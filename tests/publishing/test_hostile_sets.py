"""Sets of strangers that refer to files of this machine or to addresses: refused before anything is opened."""

import os
import sys

import pyarrow as pa
import pytest
from datasets import Dataset, load_dataset
from PIL import Image
from sets import make_set
from strangers import PRIVATE, STORED, png, stored, watch, write_rows

from hf_lgm import DistilledSet
from hf_lgm.cli.inputs import load_sets
from hf_lgm.cli.publish import main as publish
from hf_lgm.distillation.initialization import earlier_set

SECRET = (13, 57, 101)  # the colour of a private image


@pytest.fixture
def private(tmp_path, monkeypatch):
    """A private image at a place that a path may name in any form."""
    home = tmp_path / PRIVATE
    home.mkdir()
    (home / "photo.png").write_bytes(png(colour=SECRET))
    (home / "names.txt").write_text("first secret\nsecond secret\nthird secret\n")
    (home / "credentials.json").write_text('{"token": "hf_secret"}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


PATHS = [
    "{home}/photo.png",
    "photo.png",
    "./photo.png",
    "../private/photo.png",
    "~/photo.png",
    "file://{home}/photo.png",
    "http://127.0.0.1:9/photo.png",
    "https://127.0.0.1:9/photo.png",
    "hf://datasets/user/private/photo.png",
    "s3://bucket/photo.png",
    "zip://photo.png::{home}/photo.zip",
    "zip://photo.png::http://127.0.0.1:9/photo.zip",
    "",
]


def _one(path, home):
    return [*stored(2), {"bytes": None, "path": path.format(home=home)}]


def _columns(kind, home):
    """Hostile sets beside those of one column of images: what the parquet file holds and says."""
    path = [{"bytes": None, "path": f"{home}/photo.png"}] * 3
    second = {"second": path}, {"second": STORED}
    return {
        "a second column of images": (*second, {"second": {"_type": "Image"}}),
        "a column of sounds": (*second, {"second": {"_type": "Audio"}}),
        "a column of films": (*second, {"second": {"_type": "Video"}}),
        "images in a list": (
            {"second": [[one] for one in path]},
            {"second": pa.list_(STORED)},
            {"second": {"_type": "List", "feature": {"_type": "Image"}}},
        ),
        "bytes and a path": ({"image": [{**one, "path": f"{home}/photo.png"} for one in stored()]}, {}, {}),
        "names of classes in a file": (
            {}, {}, {"label": {"_type": "ClassLabel", "names_file": f"{home}/names.txt", "num_classes": 3}},
        ),
        "images as text": ({"image": [f"{home}/photo.png"] * 3}, {"image": pa.string()}, {}),
        "sounds called image": ({"image": path}, {}, {"image": {"_type": "Audio"}}),
        "images as they are stored": ({"image": path}, {}, {"image": {"_type": "Image", "decode": False}}),
        "PDFs called image": ({"image": path}, {}, {"image": {"_type": "Pdf"}}),
    }[kind]  # fmt: skip


KINDS = ["a second column of images", "a column of sounds", "a column of films", "images in a list",
         "bytes and a path", "names of classes in a file", "images as text", "sounds called image",
         "images as they are stored", "PDFs called image"]  # fmt: skip


def everything(folder, out):
    """All that a set goes through: read by each door, shown, looked at, saved; returns what was saved."""
    found = []
    for read in (DistilledSet.from_pretrained, DistilledSet.wrap, lambda name: load_sets([str(name)])[name.name]):
        try:
            images = read(folder)
        except (ValueError, FileNotFoundError) as error:
            found.append(str(error))
            continue
        images.show()
        images._repr_html_()
        images.to_publish(True).save_pretrained(out)
        found.append(out)
    try:
        earlier_set(str(folder), ["a", "b", "c"], 1)
    except ValueError as error:
        found.append(str(error))
    return found


def assert_nothing_leaked(found, seen, out):
    assert seen == []
    for file in out.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"secret" not in data and png(colour=SECRET) not in data and PRIVATE.encode() not in data, file
    for said in found:
        assert not isinstance(said, str) or ("\n" not in said and "secret" not in said)


@pytest.mark.parametrize("path", PATHS)
def test_an_image_that_is_elsewhere_is_refused_before_anything_is_opened(private, tmp_path, path):
    folder = write_rows(tmp_path / "set", {"image": _one(path, private)})
    with watch() as seen:
        found = everything(folder, tmp_path / "out")
    assert_nothing_leaked(found, seen, tmp_path / "out")
    assert len(found) == 4
    assert all("row 2, image: expected the image itself, found" in said for said in found)


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_column_and_no_feature_leads_elsewhere(private, tmp_path, kind):
    columns, types, features = _columns(kind, private)
    folder = write_rows(tmp_path / "set", columns, types, features)
    with watch() as seen:
        found = everything(folder, tmp_path / "out")
    assert_nothing_leaked(found, seen, tmp_path / "out")
    if kind in KINDS[:5]:  # the images are here; what else there is is left where it is
        assert (tmp_path / "out/data/train-00000-of-00001.parquet").is_file()
        assert load_dataset(str(tmp_path / "out"))["train"].column_names == ["image", "label"]
    else:
        assert len(found) == 4 and all(".parquet" in said for said in found)


@pytest.mark.parametrize("file", ["data/train-00000-of-00001.parquet", "lgm_config.json", "results.json"])
def test_a_link_out_of_the_folder_is_not_followed(private, tmp_path, file):
    folder = make_set(3).save_pretrained(tmp_path / "set")
    (folder / file).unlink()
    (folder / file).symlink_to(private / "credentials.json")
    with watch() as seen:
        found = everything(folder, tmp_path / "out")
    assert_nothing_leaked(found, seen, tmp_path / "out")
    assert all(f"{file} of '" in said and "is a link to a file elsewhere" in said for said in found)


def test_a_link_within_the_folder_and_of_the_cache_is(tmp_path):
    made = make_set(3)
    made.save_pretrained(tmp_path / "models--user--set/blobs")
    snapshot = tmp_path / "models--user--set/snapshots/0123"
    (snapshot / "data").mkdir(parents=True)
    for file in ("data/train-00000-of-00001.parquet", "lgm_config.json", "results.json"):
        (snapshot / file).symlink_to(tmp_path / "models--user--set/blobs" / file)
    assert DistilledSet.from_pretrained(snapshot).fingerprint == made.fingerprint


def run_publish(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, flags)])
    publish()


def test_publish_takes_no_link_for_the_figure(private, tmp_path, monkeypatch):
    folder = make_set(3).save_pretrained(tmp_path / "set")
    (folder / "comparison.png").symlink_to(private / "photo.png")
    flags = ["--folder", folder, "--output_dir", tmp_path / "out", "--include_source_images", "true"]
    with watch() as seen, pytest.raises(ValueError, match="comparison.png of '.*' is a link to a file elsewhere"):
        run_publish(monkeypatch, *flags)
    assert_nothing_leaked([], seen, tmp_path / "out")


def test_publish_reads_a_table_as_it_reads_a_set(tmp_path, monkeypatch):
    folder = make_set(3).save_pretrained(tmp_path / "set")
    for text, message in (("[" * 100_000, "table.json is no JSON"), ('[{"mean": 1}]', "table.json, item 0")):
        (tmp_path / "table.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            run_publish(
                monkeypatch, "--folder", folder, "--output_dir", tmp_path / "out", "--results", tmp_path / "table.json"
            )


@pytest.mark.parametrize("name", ["{private}", "~/model", "../model", "photos/model"])
def test_publish_makes_no_probe_of_a_private_model_that_a_set_names(private, tmp_path, monkeypatch, name):
    (private / "photos/model").mkdir(parents=True)
    made = make_set(3, config={"backbone": {"name": name.format(private=private), "revision": None}})
    folder = made.save_pretrained(tmp_path / "set")
    with watch() as seen, pytest.raises(ValueError, match="name it with --model"):
        run_publish(monkeypatch, "--folder", folder, "--output_dir", tmp_path / "out", "--probe", "true")
    assert not [event for event in seen if event[0] != "open"]


def test_a_plain_dataset_of_files_is_used_and_not_saved(private, tmp_path):
    """It is the user's own: `load_dataset` has read the names of its files from a folder."""
    for name in ("a", "b"):
        os.makedirs(private / "photos" / name)
        (private / "photos" / name / "1.png").write_bytes(png(colour=SECRET))
    images = DistilledSet.wrap(load_dataset(str(private / "photos"), split="train"))
    assert images.pixels().shape == (2, 3, 8, 8)
    with watch() as seen, pytest.raises(ValueError, match=r"row 0, image: .* set.with_images\(set.dataset"):
        images.save_pretrained(tmp_path / "out")
    assert_nothing_leaked([], seen, tmp_path / "out")
    taken_in = images.with_images(images.dataset["image"][:])
    saved = DistilledSet.from_pretrained(taken_in.save_pretrained(tmp_path / "out"))
    assert saved.fingerprint == images.fingerprint == taken_in.fingerprint
    assert PRIVATE.encode() not in (tmp_path / "out/data/train-00000-of-00001.parquet").read_bytes()


def test_images_that_were_given_in_python_are_saved(private, tmp_path):
    opened = [Image.open(private / "photo.png") for _ in range(3)]
    images = make_set(3, size=8).with_images(opened)
    saved = DistilledSet.from_pretrained(images.save_pretrained(tmp_path / "out"))
    assert saved.dataset[0]["image"].getpixel((0, 0)) == SECRET
    plain = Dataset.from_dict({"image": [{"bytes": png(), "path": None}] * 3, "label": [0, 1, 2]})
    wrapped = DistilledSet.wrap(plain.cast(make_set(3).dataset.features))
    assert DistilledSet.from_pretrained(wrapped.save_pretrained(tmp_path / "two")).fingerprint == wrapped.fingerprint


@pytest.mark.parametrize("source_index", [[5, None, None], [0, 1, 2]])
def test_real_images_may_stay_where_they_are(tmp_path, source_index):
    images = [None if row is not None else one for row, one in zip(source_index, stored(), strict=True)]
    folder = write_rows(tmp_path / "set", {"image": images, "source_index": source_index})
    found = DistilledSet.from_pretrained(folder)
    assert found.real_rows.tolist() == [row is not None for row in source_index]
    assert found.missing_rows.tolist() == found.real_rows.nonzero()[:, 0].tolist()
    assert DistilledSet.from_pretrained(found.save_pretrained(tmp_path / "out")).missing_rows.tolist() == (
        found.missing_rows.tolist()
    )
