"""Spawrious, one-to-one, hard, out of a small archive of the same form."""

import runpy
import sys
from collections import Counter

import pytest
from conftest import ROOT
from PIL import Image

from hf_lgm import load_images

SCRIPT = str(ROOT / "scripts" / "make_spawrious.py")
LOCATIONS, BREEDS = ("beach", "desert", "jungle", "mountain", "snow"), ("bulldog", "corgi", "dachshund", "labrador")


@pytest.fixture
def archive(tmp_path):
    """A hundred images of each breed, location and folder."""
    for place in (f"{part}/{location}/{breed}" for part in "01" for location in LOCATIONS for breed in BREEDS):
        (tmp_path / "spawrious224" / place).mkdir(parents=True)
        for number in range(100):
            Image.new("RGB", (2, 2)).save(tmp_path / "spawrious224" / place / f"{number:03}.png")
    return tmp_path / "spawrious224"


def test_what_each_split_holds(archive, tmp_path, monkeypatch):
    """97 and 87 of a hundred before a breed's own background, the rest before a beach; in test all before another."""
    output = tmp_path / "spawrious-o2o-hard"
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--archive", str(archive), "--output_dir", str(output)])
    runpy.run_path(SCRIPT, run_name="__main__")
    expected = {"bulldog": ("jungle", "mountain"), "dachshund": ("mountain", "snow")}
    expected |= {"labrador": ("snow", "desert"), "corgi": ("desert", "jungle")}
    for breed, (train, test) in expected.items():
        in_train, in_test = (
            Counter("-".join(path.name.split("-")[:2]) for path in (output / split / breed).iterdir())
            for split in ("train", "test")
        )
        assert in_train == {f"0-{train}": 97, "0-beach": 3, f"1-{train}": 87, "1-beach": 13}
        assert in_test == {f"0-{test}": 100, f"1-{test}": 100}
    train, evaluation = load_images(str(output), eval_split="test")
    assert train.class_names == sorted(BREEDS) and (len(train), len(evaluation)) == (800, 800)
    assert train.image(0).size == (2, 2)


def test_of_the_whole_archive_it_is_as_many_as_the_loader_takes():
    assert [int(share * 3168) for share in runpy.run_path(SCRIPT)["SHARES"].values()] == [3072, 2756]


def test_another_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--archive", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="expected 0/beach in .*name the unpacked spawrious224"):
        runpy.run_path(SCRIPT, run_name="__main__")
    assert not (tmp_path / "out").exists()
