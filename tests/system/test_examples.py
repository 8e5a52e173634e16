"""The examples, on small models and images."""

import importlib.util

import pytest
import torch
from conftest import ROOT

from hf_lgm import DistilledSet
from hf_lgm.distillation.objectives import LabelledFeatures, balanced_weights, uniform_weights

FEW = ["--max_steps", "2"]


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_timm_backbone(dataset_folder, monkeypatch, capsys):
    timm = pytest.importorskip("timm")
    example, create = load("timm_backbone"), timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **kwargs: create(name, **kwargs))
    example.main(["--model", "test_resnet", "--dataset", dataset_folder, *FEW])
    assert "'eval_accuracy': " in capsys.readouterr().out
    made = DistilledSet.from_pretrained("outputs/timm")
    assert (made.config["backbone"]["name"], made.images_per_class) == ("test_resnet", 1)


@pytest.mark.slow
def test_several_backbones(capsys):
    load("several_backbones").main(FEW)
    first, *_ = capsys.readouterr().out.splitlines()
    assert "demo-vit" in first and "demo-convnext" in first
    assert DistilledSet.from_pretrained("outputs/several").images_per_class == 1


def test_own_objective_is_the_distance_of_class_means():
    example = load("own_objective")
    real = LabelledFeatures(
        torch.tensor([[0.0, 0], [2, 0], [4, 4]]), y := torch.tensor([0, 0, 1]), balanced_weights(y)
    )
    z = torch.tensor([[1.0, 0], [4, 2]], requires_grad=True)
    synthetic = LabelledFeatures(z, labels := torch.eye(2), uniform_weights(labels))
    loss = example.distance_of_means(synthetic, real, torch.zeros(2, 2))
    means = torch.tensor([[1.0, 0], [4, 4]])
    assert loss.item() == pytest.approx((1.0**2 * 4 / 4) / means.var(dim=0, correction=0).mean().item())
    loss.backward()
    assert z.grad[0].abs().sum() == 0 and z.grad[1, 1] < 0


def test_own_objective(model_folder, dataset_folder, capsys):
    load("own_objective").main(["--model", model_folder, "--dataset", dataset_folder, *FEW])
    assert "'eval_accuracy': " in capsys.readouterr().out
    made = DistilledSet.from_pretrained("outputs/own-objective")
    assert made.config["settings"]["objective"] == "distance_of_means"
