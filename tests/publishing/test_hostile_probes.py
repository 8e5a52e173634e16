"""Probes of strangers: their weights and words are checked before a backbone is loaded for them."""

import json

import pytest
import torch
from conftest import SIDE
from safetensors.torch import load_file, save_file
from strangers import PRIVATE, replaced, watch

from hf_lgm import FrozenBackbone, ProbeModel
from hf_lgm.evaluation.probe_files import HEAD_FILE, read_probe
from hf_lgm.publishing.files import CONFIG_FILE

NAMES = ["a", "b", "c"]


@pytest.fixture
def saved(model_folder, tmp_path, monkeypatch):
    """A head, as it is saved where Transformers has no classifier for it."""
    monkeypatch.setattr("hf_lgm.evaluation.probe_model.own_classifier", lambda *of: None)
    backbone = FrozenBackbone.from_pretrained(model_folder)
    W = torch.randn(3, backbone.dim, generator=torch.Generator().manual_seed(0))
    described = {"artifact": "probe", "backbone": backbone.describe()}
    config = {"class_names": NAMES, "num_images": 3, "probe": "p", **described}
    return ProbeModel(backbone, W, torch.zeros(3), NAMES, config).save_pretrained(tmp_path / "probe")


def test_what_is_saved_is_loaded(saved):
    probe = ProbeModel.from_pretrained(saved)
    assert probe.class_names == NAMES and probe.weight.shape == (3, 24) and probe.backbone.image_size == SIDE


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (["class_names"], ["a", "a", "b"], "class_names: expected a list of names, none of them empty or twice"),
        (["class_names"], ["a", "", "b"], "class_names: expected a list of names"),
        (["class_names"], "abc", "class_names: expected a list of names"),
        (["class_names"], ["a", "b"], r"head.safetensors, weight: expected numbers of shape \(2, 24\)"),
        (["backbone", "feature_size"], 23, r"weight: expected numbers of shape \(3, 23\)"),
        (["backbone", "feature_size"], True, "backbone, feature_size: expected a whole number at least 1, found True"),
        (["backbone", "image_size"], 10**6, "image_size: expected a whole number at least 1 and at most 4,096"),
        (["backbone", "resize_ratio"], 1e9, "backbone, resize_ratio: expected a number at least 1 and at most 16"),
        (["backbone", "mean"], [float("nan")] * 3, "backbone, mean: expected three numbers, or one, found a list"),
        (["backbone", "std"], [0, 1, 1], "backbone, std: expected three numbers above 0"),
        (["backbone", "source"], 7, "backbone, source: expected text, found 7"),
        (["backbone"], [], "backbone: expected a mapping of names to values, found a list"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_words_that_can_not_be(saved, way, value, message):
    config = json.loads((saved / CONFIG_FILE).read_text())
    (saved / CONFIG_FILE).write_text(json.dumps(replaced(config, way, value)))
    with pytest.raises(ValueError, match=message):
        read_probe(str(saved))


@pytest.mark.parametrize("missing", ["class_names", "backbone", "source", "pooling", "mean", "feature_size"])
def test_words_that_are_missing(saved, missing):
    config = json.loads((saved / CONFIG_FILE).read_text())
    holder = config if missing in config else config["backbone"]
    del holder[missing]
    (saved / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"lgm_config.json.*: expected .*{missing}.*, found no {missing}"):
        read_probe(str(saved))
    (saved / CONFIG_FILE).unlink()
    with pytest.raises(ValueError, match="lgm_config.json: expected class_names, backbone"):
        read_probe(str(saved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.pop("bias"), r"head.safetensors, bias: expected numbers of shape \(3,\), found none"),
        (lambda head: head.update(weight=head["weight"].T.contiguous()), r"weight: .* found torch.float32 of"),
        (lambda head: head.update(weight=head["weight"].long()), "weight: expected numbers .* found torch.int64"),
        (lambda head: head["weight"].__setitem__((1, 2), float("nan")), "weight: expected numbers, found NaN"),
        (lambda head: head["bias"].__setitem__(0, float("inf")), "bias: expected numbers, found NaN or infinity"),
    ],
)
def test_weights_that_can_not_be(saved, change, message):
    head = load_file(saved / HEAD_FILE)
    change(head)
    save_file(head, saved / HEAD_FILE)
    with pytest.raises(ValueError, match=message):
        read_probe(str(saved))


def test_a_damaged_head(saved):
    data = (saved / HEAD_FILE).read_bytes()
    for damaged in (b"", data[:50], b"\xff" * 8 + data[8:], data[:-1]):
        (saved / HEAD_FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match="head.safetensors: expected tensors, found .* Is the file whole"):
            read_probe(str(saved))


@pytest.mark.parametrize("source", ["{home}/model", "~/model", "../private/model", "user/model", "file:///x", "model"])
def test_a_probe_of_the_hub_names_no_model_of_this_machine(saved, tmp_path, monkeypatch, source):
    """`user/model` would be one of the Hub, but for a folder of that name."""
    home = tmp_path / PRIVATE
    for name in ("model", "user/model"):
        (home / name).mkdir(parents=True)
        (home / name / "config.json").write_text("{}")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    config = json.loads((saved / CONFIG_FILE).read_text())
    changed = replaced(config, ["backbone", "source"], source.format(home=home))
    (saved / CONFIG_FILE).write_text(json.dumps(changed))
    monkeypatch.setattr("hf_lgm.evaluation.probe_files.fetch_files", lambda *of: saved)
    with watch() as seen, pytest.raises(ValueError, match="which is no model of the Hub"):
        ProbeModel.from_pretrained("user/probe")
    assert seen == []


def test_what_is_published_names_no_folder(saved, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_lgm.evaluation.probe_model.own_classifier", lambda *of: None)
    published = ProbeModel.from_pretrained(saved).save_pretrained(tmp_path / "published", repo_id="user/probe")
    assert json.loads((published / CONFIG_FILE).read_text())["backbone"]["source"] == "tiny-dinov2"
    for file in published.iterdir():
        assert model_folder.encode() not in file.read_bytes(), file
