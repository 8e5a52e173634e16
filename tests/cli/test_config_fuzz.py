"""YAML files of flags, mutated: settings of the right types, or one sentence that names the file or the flag."""

from collections import Counter

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DataArguments, ModelArguments
from hf_lgm.cli.distill import RunArguments
from hf_lgm.cli.parsing import parse_arguments
from hf_lgm.values import converted, types_of

TYPES = (ModelArguments, DataArguments, LGMArguments, RunArguments)
FIELDS = {name: kind for of in TYPES for name, kind in types_of(of).items()}
RECIPES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "hf_lgm" / "recipes").glob("*.yaml"))]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["8e-2", "1e3", "10.0", "0x10", "1_000", "no", "yes", "~", "nan", ".inf", "-1", "0", "2024-01-01"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)
PIECES = st.sampled_from(
    ["\t", ": ", "- ", "[", "}", "&a ", "*a", "!!python/object:os.system ", "? ", "|\n", "%YAML 9\n"]
)


@st.composite
def mutated(draw) -> bytes:
    """Fields of any type in place of a recipe's, then bytes of the text itself."""
    values = yaml.safe_load(draw(st.sampled_from(RECIPES))) or {}
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)):
        values[name] = draw(VALUES)
    text = yaml.safe_dump(values, allow_unicode=True)
    damage, place = draw(st.integers(0, 9)), draw(st.integers(0, len(text)))
    if damage == 0:
        text = text[:place]
    elif damage == 1:
        text = text[:place] + draw(PIECES) + text[place:]
    elif damage == 2:
        text += draw(st.text(max_size=10)) + ": " + draw(st.text(max_size=10))
    data = text.encode("utf-8", errors="surrogatepass")
    return data[:place] + draw(st.binary(max_size=3)) + data[place:] if damage == 3 else data


@pytest.mark.parametrize("examples", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutated_yaml_is_settings_or_a_sentence(tmp_path, examples, record_property):
    path, counts = tmp_path / "flags.yaml", Counter()

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutated())
    def read(data):
        path.write_bytes(data)
        try:
            parsed = parse_arguments(TYPES, "", ["--config", str(path)])
        except (ValueError, OSError, ImportError) as error:
            counts["sentences"] += 1
            assert str(error) and "\n" not in str(error).strip(), error
        else:
            counts["settings"] += 1
            for settings_of in parsed:
                for name, kind in types_of(type(settings_of)).items():
                    value = getattr(settings_of, name)
                    assert converted(value, kind, name) == value and type(converted(value, kind, name)) is type(value)

    read()
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["flags.yaml"]  # nothing is written
    print(f"YAML: {counts['settings']} settings, {counts['sentences']} sentences")  # noqa: T201  (pytest -s)
    record_property("counts", dict(counts))
    assert counts["settings"] and counts["sentences"]
