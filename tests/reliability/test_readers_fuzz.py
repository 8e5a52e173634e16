"""Files of sets and probes, mutated: what can be used, or one sentence that names the file; nothing else is opened."""

import copy
import json
import shutil
from collections import Counter

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from sets import make_set
from strangers import CONFIG, HOSTILE, PRIVATE, RESULTS, places, png, stored, watch, write_rows

from hf_lgm import DistilledSet
from hf_lgm.evaluation.probe_files import HEAD_FILE, read_probe
from hf_lgm.publishing.files import CONFIG_FILE, DATA_FILE, RESULTS_FILE

DEFAULT, SLOW = 25, 2500  # inputs for each of the four readers: 100 and 10,000 in all
FUZZED = settings(
    max_examples=SLOW, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
EXAMPLES = pytest.mark.parametrize("examples", [DEFAULT, pytest.param(SLOW, marks=pytest.mark.slow)])
IGNORED = pytest.mark.filterwarnings("ignore")  # of the card's library, about licences it does not know
PROBE = {
    "class_names": ["a", "b", "c"], "num_images": 3, "probe": "p", "artifact": "probe", "license": None,
    "backbone": {**CONFIG["backbone"], "name": "user/model", "source": "user/model", "feature_size": 4},
}  # fmt: skip

TEXT = st.text(max_size=30) | st.sampled_from(
    [*HOSTILE, f"/{PRIVATE}/photo.png", "../../outside", "user/other", "top-5"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SAME = {str: TEXT, int: st.integers(), float: st.floats(), bool: st.booleans()}  # what gets past the types


@st.composite
def mutated(draw, whole) -> bytes:
    """One to three values replaced, removed or added, or the text itself damaged."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *way, key = draw(st.sampled_from(list(places(value)) or [(None,)]))
        holder = value
        for step in way:
            holder = holder[step]
        if key is None:
            break
        kind = draw(st.integers(0, 5))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw(TEXT)] = draw(VALUES)
        else:
            holder[key] = draw(SAME.get(type(holder[key]), VALUES) | SAME.get(type(holder[key]), VALUES) | VALUES)
    return draw(damaged(json.dumps(value).encode(), 19))


@st.composite
def damaged(draw, data: bytes, seldom: int) -> bytes:
    """Bytes as they are, or seldom cut off, with some of them changed, or others altogether."""
    kind = draw(st.integers(0, seldom))
    if kind == 0:
        return data[: draw(st.integers(0, len(data)))]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    return draw(st.sampled_from([b"", b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300])) if kind == 2 else data


def outcome(counts, read, file):
    """What is read, counted; or `None` after one sentence that names the file."""
    with watch() as seen:
        try:
            found = read()
        except ValueError as error:
            counts["sentences"] += 1
            assert type(error) is ValueError and file in str(error) and "\n" not in str(error), repr(error)
            found = None
        else:
            counts["taken"] += 1
    assert seen == []
    return found


def report(counts, name, record_property):
    print(f"{name}: {counts['taken']} taken, {counts['sentences']} sentences")  # noqa: T201  (pytest -s)
    record_property("counts", dict(counts))
    assert counts["taken"] and counts["sentences"]


def use(images, folder):
    """All that reads what the files say."""
    repr(images)
    _ = images.views, images._repr_html_(), images.pixels() if images.has_images else None
    images.save_pretrained(folder, repo_id="user/set")


@IGNORED
@EXAMPLES
@pytest.mark.parametrize("file", [CONFIG_FILE, RESULTS_FILE])
def test_json_of_a_set(tmp_path, file, examples, record_property):
    inside, outside, counts = tmp_path / "root" / "set", tmp_path / "root" / "out", Counter()
    make_set(3, size=8).save_pretrained(inside)
    (inside / CONFIG_FILE).write_text(json.dumps(CONFIG))
    (inside / RESULTS_FILE).write_text(json.dumps(RESULTS))
    there = sorted(path.name for path in tmp_path.rglob("*"))

    @settings(FUZZED, max_examples=examples)
    @given(mutated(CONFIG if file == CONFIG_FILE else RESULTS))
    def read(data):
        (inside / file).write_bytes(data)
        images = outcome(counts, lambda: DistilledSet.from_pretrained(inside), file)
        if images is not None:
            use(images, outside)
            shutil.rmtree(outside)

    read()
    assert sorted(path.name for path in tmp_path.rglob("*")) == there  # nothing beside what was saved and removed
    report(counts, file, record_property)


IMAGES = st.sampled_from(
    [
        None,
        *stored(1),
        *stored(1, png(9)),
        *stored(1, png()[:40]),
        *stored(1, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"),
        *(
            {"bytes": None, "path": path}
            for path in (f"/{PRIVATE}/a.png", "http://127.0.0.1:9/a.png", "~/a.png", None)
        ),
        {"bytes": png(), "path": f"/{PRIVATE}/a.png"},
    ]
)
LABELS = st.sampled_from([0, 1, 2, 0, 1, 2, -1, 3, None, 2**62])
SOFT = st.lists(st.sampled_from([0.0, 1.0, 0.5, 1 / 3, -1.0, float("nan"), None]), min_size=2, max_size=4)
TYPES = st.sampled_from(["Image", "ClassLabel", "Audio", "Video", "Pdf", "Value", "List", "Nifti", "x", None, 7])


@st.composite
def columns(draw):
    """Columns of a set, most of them as they should be, and what the file says of them."""
    count = draw(st.integers(0, 4))
    often = draw(st.integers(0, 2)) > 0  # whether a column is as it should be
    kinds = {
        "image": st.sampled_from(stored(1)) if often else IMAGES,
        "label": st.integers(0, 2) if often else LABELS,
        "source_index": st.none() | st.integers(0 if often else -1, 5),
        "soft_label": st.just([0.5, 0.25, 0.25]) if often else st.none() | SOFT,
        "second": IMAGES,
    }
    usual = ["image", "label"] if draw(st.integers(0, 4)) else []
    names = dict.fromkeys([*usual, *draw(st.lists(st.sampled_from(list(kinds)), max_size=3))])
    found = {name: draw(st.lists(kinds[name], min_size=count, max_size=count)) for name in names}
    features = {}
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from(list(kinds)))
        features[name] = draw(VALUES) if draw(st.booleans()) else {"_type": draw(TYPES), "names": draw(VALUES)}
    return {"image": None, "label": None, **found}, features


@IGNORED
@EXAMPLES
def test_rows_of_a_set(tmp_path, examples, record_property):
    counts = Counter()
    folder = write_rows(tmp_path / "set", {})
    types = {"second": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "soft_label": pa.list_(pa.float32())}

    @settings(FUZZED, max_examples=examples)
    @given(st.data())
    def read(data):
        held, features = data.draw(columns())
        write_rows(folder, held, types, features, only_rows=True)
        whole = (folder / DATA_FILE).read_bytes()
        (folder / DATA_FILE).write_bytes(data.draw(damaged(whole, 9)))
        images = outcome(counts, lambda: DistilledSet.from_pretrained(folder), DATA_FILE)
        if images is not None:
            use(images, tmp_path / "out")
            shutil.rmtree(tmp_path / "out")

    read()
    report(counts, DATA_FILE, record_property)


@st.composite
def heads(draw) -> bytes:
    """A linear layer, most of it as it should be."""
    shapes = st.sampled_from([(3, 4), (3, 4), (3, 4), (3,), (4, 3), (2, 4), (0, 4), (3, 4, 1)])
    kinds = st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
    tensors = {"weight": torch.zeros(draw(shapes), dtype=draw(kinds)), "bias": torch.zeros(3, dtype=draw(kinds))}
    if draw(st.integers(0, 3)) == 0 and tensors["weight"].numel():
        tensors["weight"].flatten()[0] = 0 if tensors["weight"].dtype == torch.int64 else draw(st.floats(width=16))
    for name in draw(st.lists(st.sampled_from(["weight", "bias"]), max_size=1)) * draw(st.integers(0, 1)):
        del tensors[name]
    return draw(damaged(save(tensors), 6))


@EXAMPLES
def test_files_of_a_probe(tmp_path, examples, record_property):
    counts = Counter()

    @settings(FUZZED, max_examples=examples)
    @given(mutated(PROBE) | st.just(json.dumps(PROBE).encode()), heads())
    def read(config, head):
        (tmp_path / CONFIG_FILE).write_bytes(config)
        (tmp_path / HEAD_FILE).write_bytes(head)
        found = outcome(counts, lambda: read_probe(str(tmp_path)), "")
        if found is not None:
            assert found[1].shape == (len(found[0]["class_names"]), found[0]["backbone"]["feature_size"])
            assert found[1].isfinite().all() and found[2].isfinite().all()

    read()
    report(counts, HEAD_FILE, record_property)
