"""What files of a set may hold: a value that can't be is one sentence with the file and the field."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sets import make_set
from strangers import CONFIG, RESULTS, png, replaced, stored, watch, write_rows

from hf_lgm import DistilledSet
from hf_lgm.publishing import rows
from hf_lgm.publishing.files import CONFIG_FILE, DATA_FILE, RESULTS_FILE

SOFT = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]
THREE = ["a", "b", "c"]


def image(data):
    return [*stored(2), {"bytes": data, "path": None}]


def as_bytes(picture, kind):
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def eps() -> bytes:
    return as_bytes(Image.new("RGB", (8, 8)), "EPS")


NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1, 3]}, ", row 2, label: expected a class, 0 to 2, found 3"),
        ({"label": [0, -1, 2]}, ", row 1, label: expected a class, 0 to 2, found -1"),
        ({"label": [None, 1, 2]}, ", row 0, label: expected a class, 0 to 2, found None"),
        ({"image": [None, *stored(2)]}, ", row 0, image: expected an image, or a source_index that says which one"),
        ({"image": None, "source_index": [0, None, 1]}, ", row 1, image: expected an image, or a source_index"),
        ({"image": image(png(9))}, ", row 2, image: expected 8 x 8 pixels, as in row 0, found 9 x 9"),
        ({"image": image(b"")}, ", row 2, image: expected an image .* found bytes that give UnidentifiedImageError"),
        (
            {"image": image(as_bytes(Image.fromarray(NOISE), "PNG")[:150])},
            ", row 2, image: .* bytes that give OSError",
        ),
        (
            {"image": image(as_bytes(Image.new("F", (8, 8)), "TIFF"))},
            ", row 2, image: expected an image .* ValueError",
        ),
        ({"image": image(eps())}, r", row 2, image: expected an image \(PNG, JPEG, .*UnidentifiedImageError"),
        ({"image": image(png(size=(10_000, 10_000)))}, ", row 2, image: expected at most 89,478,485 pixels"),
        ({"source_index": [0, -1, 2]}, ", row 1, source_index: expected a row of the source, 0 or more, found -1"),
        ({"soft_label": [*SOFT[:2], [0.5, 0.5]]}, ", row 2, soft_label: expected 3 numbers that are not negative"),
        ({"soft_label": [*SOFT[:2], [0.5, 0.5, 0.5]]}, ", row 2, soft_label: expected .* 3 that sum to 1.5"),
        ({"soft_label": [[1.5, -0.5, 0.0], *SOFT[1:]]}, ", row 0, soft_label: expected 3 numbers that are not neg"),
        ({"soft_label": [SOFT[0], [np.nan, 0.5, 0.5], SOFT[2]]}, ", row 1, soft_label: .* 3 that sum to nan"),
        ({"soft_label": [SOFT[0], [np.inf, 0.5, 0.5], SOFT[2]]}, ", row 1, soft_label: .* 3 that sum to inf"),
        ({"soft_label": [None, *SOFT[1:]]}, ", row 0, soft_label: expected 3 numbers"),
        ({"soft_label": [[None, 0.5, 0.5], *SOFT[1:]]}, ", row 0, soft_label: expected 3 numbers"),
        ({"label": None}, r": expected columns image and label \(a ClassLabel\), found 'image'"),
        ({"image": None}, r": expected columns image and label \(a ClassLabel\), found 'label'"),
        ({"image": [], "label": []}, ": expected 1 to 1,000,000 rows, found 0"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_rows(tmp_path, columns, message):
    folder = write_rows(tmp_path / "set", columns)
    with watch() as seen, pytest.raises(ValueError, match=f"^{DATA_FILE}{message}") as said:
        DistilledSet.from_pretrained(folder)
    assert "\n" not in str(said.value) and seen == []


def label(**said):
    return {"label": {"_type": "ClassLabel", **said}}


@pytest.mark.parametrize(
    ("types", "features", "message"),
    [
        ({}, label(names=["a", "b", "b"]), ", label, names: expected a list of names, none of them empty or twice"),
        ({}, label(names=["a", "", "b"]), ", label, names: expected a list of names"),
        ({}, label(names=[]), ", label, names: expected a list of names"),
        ({}, label(names=[1, 2, 3]), ", label, names: expected a list of names"),
        ({}, label(num_classes=10**12), ", label, names: expected a list of names, .* found nothing"),
        ({}, {"label": {"_type": "Value", "dtype": "int64"}}, ": expected columns image and label"),
        ({}, {"label": None}, ": expected columns image and label"),
        ({}, {"label": "ClassLabel"}, ": expected columns image and label"),
        ({"label": pa.float64()}, {}, ", label: expected whole numbers, found the type double"),
        ({"source_index": pa.string()}, {}, ", source_index: expected whole numbers, found the type string"),
        ({"soft_label": pa.string()}, {}, ", soft_label: expected lists of numbers, found the type string"),
        ({}, {"image": {"_type": "Audio"}}, ", image: expected bytes of images, found 'Audio'"),
        ({}, {"image": None}, ", image: expected bytes of images, found no type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_columns(tmp_path, types, features, message):
    columns = {"source_index": [None] * 3, "soft_label": SOFT}
    for name, kind in types.items():
        columns[name] = [0.0, 1.0, 2.0] if kind == pa.float64() else ["x"] * 3
    folder = write_rows(tmp_path / "set", columns, types, features)
    with pytest.raises(ValueError, match=f"^{DATA_FILE}{message}"):
        DistilledSet.from_pretrained(folder)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"soft_label": SOFT},
        {"soft_label": [[0.3333, 0.3333, 0.3333], *SOFT[1:]]},
        {"source_index": [7, 7, None]},
        {"note": ["x", "y", "z"], "group": [{"a": 1}] * 3},
        {
            "image": [
                {"bytes": as_bytes(Image.fromarray(NOISE), kind), "path": "a.x"} for kind in ("PNG", "JPEG", "WEBP")
            ]
        },
    ],
    ids=str,
)
def test_what_may_be(tmp_path, columns):
    found = DistilledSet.from_pretrained(write_rows(tmp_path / "set", columns))
    assert found.pixels().shape == (3, 3, 8, 8) and found.class_names == THREE
    again = DistilledSet.from_pretrained(found.save_pretrained(tmp_path / "again"))
    assert again.fingerprint == found.fingerprint and again.dataset.features == found.dataset.features
    assert torch.equal(again.targets_as(THREE), found.targets_as(THREE))


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 1000, None])
def test_no_parquet_file(tmp_path, damage):
    folder = make_set().save_pretrained(tmp_path)
    data = (folder / DATA_FILE).read_bytes()
    (folder / DATA_FILE).write_bytes(data[:-20] if damage is None else damage)
    with pytest.raises(ValueError, match=f"^{DATA_FILE}: expected a parquet file, found .* Is the file whole"):
        DistilledSet.from_pretrained(folder)


def test_what_would_fill_memory(tmp_path, monkeypatch):
    """Of 5 MB of zeros come 100 MB, and of a picture in black a thousand times its bytes."""
    folder = write_rows(tmp_path / "set", {"image": [{"bytes": bytes(10**8), "path": None}, *stored(2)]})
    assert (folder / DATA_FILE).stat().st_size < 5_000_000
    with pytest.raises(ValueError, match=", row 0, image: expected an image"):
        DistilledSet.from_pretrained(folder)
    monkeypatch.setitem(rows.MAX_BYTES, DATA_FILE, 10**7)
    with pytest.raises(ValueError, match=": expected at most 10,000,000 bytes of rows, found more"):
        DistilledSet.from_pretrained(folder)
    write_rows(folder, {"image": stored(data=png(2000))})
    with pytest.raises(ValueError, match=r"row 0, image: .* 10,000,000 bytes in memory, found 3 of 2000 x 2000"):
        DistilledSet.from_pretrained(folder)
    monkeypatch.setattr(rows, "MAX_ROWS", 2)
    with pytest.raises(ValueError, match=": expected 1 to 2 rows, found 3"):
        DistilledSet.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "way", "value", "message"),
    [
        (CONFIG_FILE, ["settings", "crop_scale"], [0.5, 0.1], "settings, crop_scale: expected two areas 0 < smallest"),
        (CONFIG_FILE, ["settings", "crop_scale"], [0.5], "settings, crop_scale: expected two areas"),
        (CONFIG_FILE, ["settings", "flip"], "no", "settings, flip: expected true or false, found 'no'"),
        (CONFIG_FILE, ["settings", "images_per_class"], 0, "settings, images_per_class: expected a whole number"),
        (CONFIG_FILE, ["settings", "init_weight"], float("nan"), "settings, init_weight: expected .* found nan"),
        (CONFIG_FILE, ["more_backbones", 0, "name"], 7, "more_backbones, item 0, name: expected text, found 7"),
        (CONFIG_FILE, ["run", "seconds"], float("inf"), "run, seconds: expected a number at least 0, found inf"),
        (CONFIG_FILE, ["run", "processes"], 10**30, "run, processes: expected a whole number at least 1, found 10"),
        (CONFIG_FILE, ["source", "license"], {"a": 1}, "source, license: expected text, a list of texts or null"),
        (CONFIG_FILE, ["source"], "x\n\x1b[31m", r"source: expected a mapping .* found 'x\\n\\x1b\[31m'"),
        (RESULTS_FILE, [1, "mean"], 100.5, "item 1, mean: expected a number at least 0 and at most 100, found 100.5"),
        (RESULTS_FILE, [0, "std"], -1, "item 0, std: expected a number at least 0"),
        (RESULTS_FILE, [2, "n_seeds"], 1.5, "item 2, n_seeds: expected a whole number at least 1, found 1.5"),
        (RESULTS_FILE, [0], None, "item 0: expected a mapping of names to values, found nothing"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_values_of_both_files(tmp_path, file, way, value, message):
    folder = make_set().save_pretrained(tmp_path)
    whole = CONFIG if file == CONFIG_FILE else RESULTS
    (folder / file).write_text(json.dumps(replaced(whole, way, value)))
    with pytest.raises(ValueError, match=f"^{file}, {message}") as said:
        DistilledSet.from_pretrained(folder)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is no JSON that can be read"),
        ('{"a":' * 500 + "1" + "}" * 500, "holds more than 100 brackets in brackets"),
        ('{"a": "\\ud800"}', "holds half a character"),
        ('{"\\udfff": 1}', "holds half a character"),
        ('{"a": ' + "9" * 5000 + "}", "is no JSON that can be read"),
        ("\ufeff{}", "is no JSON that can be read"),
        (b"\xff\xfe{}", "is no JSON that can be read"),
        ("[1]", "holds a list where a dict was expected"),
        ("", "is no JSON that can be read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_json_of_ours(tmp_path, text, message):
    folder = make_set().save_pretrained(tmp_path)
    (folder / CONFIG_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"lgm_config.json {message}"):
        DistilledSet.from_pretrained(folder)


def test_what_other_versions_write_is_left_as_it_is(tmp_path):
    """Keys that are not known here may hold anything, and are written again; 0.1 wrote no more than these."""
    folder = make_set().save_pretrained(tmp_path / "set")
    config = {
        "settings": {"later": [None, {"x": 1}]},
        "later": {"deep": [1.5, None]},
        "backbone": {"name": "demo-vit"},
    }
    rows_ = [{**RESULTS[0], "later": {"a": None}}]
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / RESULTS_FILE).write_text(json.dumps(rows_))
    found = DistilledSet.from_pretrained(folder)
    assert (found.config, found.results) == (config, rows_)
    again = DistilledSet.from_pretrained(found.save_pretrained(tmp_path / "again"))
    assert (again.config, again.results) == (config, rows_)
    for file in (CONFIG_FILE, RESULTS_FILE):
        (folder / file).unlink()
    assert (DistilledSet.from_pretrained(folder).config, DistilledSet.from_pretrained(folder).results) == ({}, [])
