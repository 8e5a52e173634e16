"""How a result reads."""

import math

import pytest

from hf_lgm.publishing.results import ProbeResult

RESULT = ProbeResult("distilled", "demo-vit", "p", {"top-1": [87.3, 88.2, 89.1], "top-5": [99.0, 99.0, 99.0]})


def test_as_text():
    assert str(RESULT) == "88.2 ± 0.9 %" == f"{RESULT}"
    assert str(ProbeResult("a", "b", "p", {"top-1": [52.0]})) == "52.0 %"
    assert repr(RESULT) == "ProbeResult('distilled' through demo-vit: 88.2 ± 0.9 %)"


def test_in_pandas():
    frame = RESULT.to_pandas()
    assert list(frame["metric"]) == ["top-1", "top-5"]
    assert frame.to_dict("records") == RESULT.rows()
    assert frame.loc[0, "mean"] == pytest.approx(88.2) and not math.isnan(frame.loc[1, "std"])
