"""Trackers that are not there are one sentence, before anything is loaded."""

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hf_lgm import LGMConfig, trackers
from hf_lgm.distillation import callbacks


def test_all_that_transformers_has():
    assert set(trackers.TRACKERS) == set(INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize("name", sorted(set(trackers.TRACKERS) - {"kubeflow"}))
def test_what_is_not_installed(monkeypatch, name):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    package = trackers.TRACKERS[name][0]
    with pytest.raises(ImportError) as caught:
        LGMConfig(report_to=name)
    assert str(caught.value) == f"report_to='{name}' needs a package that is not installed: pip install {package}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wanb", r"report_to takes all, none, or of azure_ml, .*, wandb, found 'wanb'; did you mean wandb\?"),
        ("TensorBoard", r"found 'TensorBoard'; did you mean tensorboard\?"),
        (["none", "tensorboard"], "found 'none'"),
        ("xyz", r"found 'xyz'\."),
    ],
)
def test_what_is_no_tracker(given, message):
    with pytest.raises(ValueError, match=message):
        LGMConfig(report_to=given)


def test_what_transformers_misses_is_not_a_traceback(monkeypatch):
    def missing():
        raise RuntimeError("XCallback requires x to be installed. Run `pip install x`.")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", missing)
    with pytest.raises(ImportError, match="report_to: XCallback requires x to be installed"):
        callbacks.callback_handler(LGMConfig(report_to="tensorboard"), [])


def test_what_torch_does_not_have():
    with pytest.raises(ValueError, match="ddp_backend must be one of gloo, .*found 'mccl'"):
        LGMConfig(ddp_backend="mccl")
