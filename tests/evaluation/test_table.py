"""A comparison as text, in pandas, in a notebook, and as a plot."""

import builtins

import pytest

from hf_lgm.evaluation.table import Comparison
from hf_lgm.publishing.results import ProbeResult


@pytest.fixture
def comparison():
    accuracies = {
        ("ours", "maker/vit"): {"top-1": [80.0, 82.0], "macro": [70.0, 70.0]},
        ("ours", "net"): {"top-1": [60.0, 60.0], "macro": [50.0, 52.0]},
        ("<all>", "maker/vit"): {"top-1": [90.0], "macro": [91.0]},
        ("<all>", "net"): {"top-1": [95.0], "macro": [92.0]},
    }
    results = [ProbeResult(name, backbone, "p", values) for (name, backbone), values in accuracies.items()]
    return Comparison({}, results, failures={"broken": "out of order"})


def test_it_prints_its_table(comparison):
    assert str(comparison) == comparison.table()
    assert str(comparison).splitlines()[2].split() == [
        *"| ours |".split(),
        *"81.0 ± 1.4 | 60.0 ± 0.0 | failed |".split(),
    ]
    assert repr(comparison) == "Comparison(2 training sets, through maker/vit, net)"


def test_in_pandas(comparison):
    frame = comparison.to_pandas()
    assert list(frame.index) == ["ours", "<all>"] and list(frame.columns) == ["vit", "net", "broken"]
    assert frame.loc["ours", "vit"] == 81.0 and frame.loc["<all>", "net"] == 95.0
    assert frame["broken"].isna().all() and (frame.index.name, frame.columns.name) == ("trained on", "backbone")
    assert comparison.to_pandas("macro").loc["ours", "net"] == 51.0
    tidy = comparison.to_pandas(None)
    assert len(tidy) == 8 and {"training_set", "backbone", "metric", "mean", "std", "n_seeds"} <= set(tidy.columns)
    assert tidy.query("metric == 'macro' and backbone == 'net'")["mean"].tolist() == [51.0, 92.0]
    with pytest.raises(ValueError, match="There is no metric 'f1'. Found: top-1, macro"):
        comparison.to_pandas("f1")


def test_in_a_notebook(comparison):
    text = comparison._repr_html_()
    assert "<th>ours</th><td>81.0 ± 1.4</td><td>60.0 ± 0.0</td><td>failed</td>" in text
    assert "<th>&lt;all&gt;</th><td>90.0</td>" in text and "<all>" not in text


def test_bars(comparison):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ax = comparison.plot()
    vit, net = ax.containers[1], ax.containers[3]  # each after its error bars
    assert [bar.get_height() for bar in vit] == [81.0, 90.0] and [bar.get_height() for bar in net] == [60.0, 95.0]
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in (vit, net)]
    assert centres == [pytest.approx([-0.2, 0.8]), pytest.approx([0.2, 1.2])]
    (spreads,) = vit.errorbar.lines[2]
    assert [segment[:, 1].tolist() for segment in spreads.get_segments()] == [
        pytest.approx([81 - 2**0.5, 81 + 2**0.5], abs=0.01), [90.0, 90.0]
    ]  # fmt: skip
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["vit", "net"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["ours", "<all>"]
    assert comparison.plot("macro", ax=ax) is ax
    plt.close(ax.figure)


def test_without_matplotlib(comparison, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"needs matplotlib, which is not installed: pip install 'hf_lgm\[plots\]'"):
        comparison.plot()
