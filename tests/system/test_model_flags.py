"""What the flags of models reach."""

import json
import sys

import pytest
import torch
from commands import QUICK

from hf_lgm.cli import distill, evaluate
from hf_lgm.cli.arguments import ModelArguments
from hf_lgm.cli.inputs import load_backbones, load_each
from hf_lgm.evaluation.comparison import compare


@pytest.fixture
def given(model_folder, tmp_path):
    """Two models, and flags for them."""
    copy = tmp_path / "copy"
    copy.symlink_to(model_folder)
    flags = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resize_ratio": 1.25}
    return ModelArguments(model=[model_folder, str(copy)], feature_pooling="mean", **flags)


def check(backbones):
    for backbone in backbones:
        torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
        torch.testing.assert_close(backbone.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
        assert backbone.preprocessing.resize_ratio == 1.25
    assert [backbone.pooling for backbone in backbones] == ["mean", "pooler"]  # which only the first is asked for


def test_statistics_and_resize_reach_every_model(given):
    """Those that images are made through, those that are only evaluated on, and all of a table."""
    check(load_backbones(given, given.model))
    check(load_each(given, given.model)[0])


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_what_was_distilled_in_bfloat16_is_scored_in_float32(
    streaming, model_folder, dataset_folder, tmp_path, monkeypatch
):
    """As evaluate.py does: its table has the same numbers, and the set says what it was made in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distill, "_choose_runs", lambda args, run_args: {"distilled": args})
    scored_in = []

    def watched(sets, backbones, *args, **kwargs):
        scored_in.append([backbone.dtype for backbone in backbones])
        return compare(sets, backbones, *args, **kwargs)

    monkeypatch.setattr("hf_lgm.evaluation.comparison.compare", watched)
    where = ["--model", model_folder, "--dataset", dataset_folder, "--use_cpu", "true"]
    how = [*QUICK, "--bf16", "true", "--streaming", streaming, "--output_dir", "set"]
    only = ["--sets", "set", "--baselines", "none", "--references", "nearest class mean", "--eval_seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["distill.py", *where, *how])
    distill.main()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *where, *only, "--output_dir", "table"])
    evaluate.main()
    made, table = (json.loads((tmp_path / folder / "results.json").read_text()) for folder in ("set", "table"))
    config = json.loads((tmp_path / "set" / "lgm_config.json").read_text())
    assert config["settings"]["bf16"] and config["backbone"]["dtype"] == "bfloat16"
    assert scored_in == [[torch.float32]] * 2
    for wanted in table:
        name = wanted["training_set"].replace("set", "distilled")
        (found,) = [row for row in made if (row["training_set"], row["metric"]) == (name, wanted["metric"])]
        assert (found["mean"], found["std"]) == (wanted["mean"], wanted["std"])
    assert len(table) == 2
