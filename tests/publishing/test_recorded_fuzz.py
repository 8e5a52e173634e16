"""The JSON files of a set, mutated: a set that can be used and saved, or one sentence that names the file."""

import copy
import json
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sets import make_set
from strangers import CONFIG, RESULTS, places

from hf_lgm import DistilledSet

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("../../outside"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


TEXT = st.text(max_size=30) | st.sampled_from(["../../outside", "/outside", "user/other", "top-5", "a | b\n# c"])
SAME = {str: TEXT, int: st.integers(), float: st.floats(), bool: st.booleans()}  # what gets past the types


@st.composite
def mutated(draw, whole) -> str:
    """One to three values replaced or removed, or the text itself damaged."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *way, key = draw(st.sampled_from(list(places(value)) or [(None,)]))
        holder = value
        for step in way:
            holder = holder[step]
        if key is None:
            break
        if draw(st.integers(0, 3)) == 0:
            del holder[key]
        else:
            holder[key] = draw(SAME.get(type(holder[key]), VALUES) | SAME.get(type(holder[key]), VALUES) | VALUES)
    text = json.dumps(value)
    damage = draw(st.integers(0, 19))
    if damage == 0:
        return text[: draw(st.integers(0, len(text)))]
    return json.dumps(draw(VALUES)) if damage == 1 else "[" * 100_000 if damage == 2 else text


def use(images: DistilledSet, folder) -> None:
    """All that reads what the files say."""
    images.save_pretrained(folder, repo_id="user/set")
    try:
        _ = images.views
    except ValueError as error:
        assert "crop_scale must be two areas" in str(error)


@pytest.mark.filterwarnings("ignore")  # of the card's library, about licences it does not know
@pytest.mark.parametrize("file", ["lgm_config.json", "results.json"])
@pytest.mark.parametrize("examples", [100, pytest.param(2500, marks=pytest.mark.slow)])
def test_mutated_json_is_a_set_or_a_sentence(tmp_path, file, examples, record_property):
    inside, outside, counts = tmp_path / "root" / "set", tmp_path / "root" / "out", Counter()
    make_set().save_pretrained(inside)
    (inside / "lgm_config.json").write_text(json.dumps(CONFIG))
    (inside / "results.json").write_text(json.dumps(RESULTS))
    there = sorted(path.name for path in tmp_path.rglob("*"))

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutated(CONFIG if file == "lgm_config.json" else RESULTS))
    def read(text):
        (inside / file).write_text(text, encoding="utf-8")
        try:
            images = DistilledSet.from_pretrained(inside)
        except ValueError as error:
            counts["sentences"] += 1
            assert file in str(error) and "\n" not in str(error)
        else:
            counts["sets"] += 1
            use(images, outside)
            shutil.rmtree(outside)

    read()
    assert sorted(path.name for path in tmp_path.rglob("*")) == there  # nothing beside what was saved and removed
    print(f"{file}: {counts['sets']} sets, {counts['sentences']} sentences")  # noqa: T201  (pytest -s)
    record_property("counts", dict(counts))
    assert counts["sets"] and counts["sentences"]
