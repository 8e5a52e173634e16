"""Probes and references through one backbone: computed once, kept by content."""

import dataclasses
import json

import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from hf_lgm import FrozenBackbone, LabelledImages, Preprocessing, ProbeProtocol, select_baseline
from hf_lgm.evaluation.evaluator import Evaluator
from hf_lgm.evaluation.references import REFERENCES, zero_shot_head

QUICK = ProbeProtocol(epochs=50, learning_rate=1e-2, seeds=2)


@pytest.fixture
def real():
    return LabelledImages.from_dataset(make_dataset(seed=1))


@pytest.fixture
def calls(backbone):
    """How many images the backbone has encoded, batch by batch."""
    counted = []
    backbone.model.register_forward_pre_hook(lambda module, inputs: counted.append(len(inputs[0])))
    return counted


@pytest.fixture
def evaluation(backbone, real, train_images):
    return Evaluator(backbone, real, train_images, QUICK, cache=True)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_lgm.evaluation.evaluator.assets_folder", lambda kind: tmp_path / kind)
    return tmp_path / "results"


def test_ten_sets_take_one_pass_over_the_images_to_score_on(evaluation, calls, real):
    sets = [evaluation.baseline("random", 1, seed=seed) for seed in range(10)]
    calls.clear()
    for number, images in enumerate(sets):
        evaluation.probe(f"set {number}", [images] * 2, images.views)
    views_of_sets = 10 * 2 * 3 * 50  # sets, seeds, images, views
    assert sum(calls) - views_of_sets == len(real)


def test_a_known_result_encodes_nothing(evaluation, backbone, real, train_images, calls, kept):
    images = evaluation.baseline("random", 1)
    first = evaluation.probe("a name", [images] * 2, images.views)
    calls.clear()
    again = Evaluator(backbone, real, train_images, QUICK, cache=True)
    assert again.probe("another", [images] * 2, images.views) == first.named("another", "tiny-dinov2")
    references = [evaluation.reference(name) for name in REFERENCES]
    count = len(list(kept.glob("*.json")))
    calls.clear()
    assert [again.reference(name) for name in REFERENCES] == references and not calls
    assert len(list(kept.glob("*.json"))) == count == len(REFERENCES)  # no zero-shot text, but the probe


@pytest.mark.parametrize("change", ["a digit", "no digest", "a list", "cut", "brackets"])
def test_a_damaged_result_is_found_again(evaluation, kept, caplog, change):
    first = evaluation.reference("nearest class mean")
    [path] = kept.glob("*.json")
    text = path.read_text()
    damaged = {
        "a digit": text.replace(f"{first.accuracies['top-1'][0]}", "99.5", 1),
        "no digest": text.replace("sha256", "sha257"),
        "a list": "[1, 2]",
        "cut": text[: len(text) // 2],
        "brackets": "[" * 100_000,
    }[change]
    assert damaged != text
    path.write_text(damaged)
    assert evaluation.reference("nearest class mean") == first
    assert f"Computing the damaged result {path} again" in caplog.text and path.read_text() == text


def test_everything_that_decides_a_result_is_in_its_key(evaluation, backbone, real, train_images, kept):
    images = evaluation.baseline("random", 1)

    def count(backbone=backbone, real=real, protocol=QUICK, images=images, views=images.views, train=train_images):
        some = Evaluator(backbone, real, train, protocol, cache=True)
        some.probe("set", [images] * protocol.seeds, views)
        return len(list(kept.glob("*.json")))

    other_weights = FrozenBackbone(make_vit(1), Preprocessing(SIDE, resize_ratio=1.0))
    assert count() == count() == 1
    assert count(backbone=other_weights) == 2
    assert count(real=real.select(torch.arange(20))) == 3
    assert count(protocol=ProbeProtocol(epochs=50, learning_rate=1e-2, seeds=1)) == 4
    assert count(images=evaluation.baseline("random", 1, seed=1)) == 5
    assert count(views=images.views.__class__(flip=False)) == 6
    assert count(views=images.views.__class__(bounded_crops=False)) == 7
    assert count(real=dataclasses.replace(real, labels=real.labels.flip(0))) == 8
    assert count(real=dataclasses.replace(real, groups=real.labels, group_names=list("abc"))) == 9
    assert count(real=dataclasses.replace(real, groups=real.labels, group_names=list("abd"))) == 10
    evaluation.reference("nearest class mean")
    Evaluator(backbone, real, train_images.select(torch.arange(20)), QUICK, cache=True).reference("nearest class mean")
    assert len(list(kept.glob("*.json"))) == 12


def test_other_code_does_not_find_the_results(evaluation, kept, monkeypatch):
    evaluation.reference("nearest class mean")
    monkeypatch.setattr("hf_lgm.evaluation.evaluator._code", lambda: "changed")
    evaluation.reference("nearest class mean")
    assert len(list(kept.glob("*.json"))) == 2


def test_a_damaged_result_is_computed_again(evaluation, kept, caplog):
    first = evaluation.reference("nearest class mean")
    (path,) = kept.glob("*.json")
    path.write_text("{")
    assert evaluation.reference("nearest class mean") == first and "damaged" in caplog.text
    assert json.loads(path.read_text())["training_set"] == "nearest class mean"


def test_references_are_in_order_and_say_how_they_were_found(evaluation):
    results = {name: evaluation.reference(name) for name in REFERENCES}
    assert results.pop("zero-shot text") is None  # this backbone has no text
    assert all(result.mean > 80 for result in results.values())  # colours are easily told
    assert "chosen on held-out training images" in results["ridge regression"].protocol
    assert results["probe on class means"].protocol == "probe: 50 epochs of Adam, lr 0.01, cosine"
    assert len(results["probe on class means"].accuracies["top-1"]) == 2
    with pytest.raises(ValueError, match="A reference is one of zero-shot text, .*; found 'oracle'"):
        evaluation.reference("oracle")


def test_references_need_training_images(backbone, real):
    with pytest.raises(ValueError, match="give the Evaluator its `train_images`"):
        Evaluator(backbone, real).reference("nearest class mean")


def test_the_order_of_class_names_does_not_matter(backbone, real, train_images):
    """A set whose classes are numbered otherwise is the same set."""
    images = select_baseline("centroid", backbone, train_images)
    other = select_baseline("centroid", backbone, train_images.with_classes(["class 2", "class 0", "class 1"]))
    assert other.labels_as(real.class_names).tolist() == [2, 0, 1]
    evaluation = Evaluator(backbone, real, None, QUICK)
    assert evaluation.probe("set", [other] * 2, other.views).mean == pytest.approx(
        evaluation.probe("set", [images] * 2, images.views).mean, abs=5
    )


def test_training_images_must_number_classes_alike(backbone, real, train_images):
    with pytest.raises(ValueError, match="number their classes differently"):
        Evaluator(backbone, real, train_images.with_classes(["class 2", "class 0", "class 1"]))


def test_sets_of_several_seeds_must_have_one_order(backbone, real, train_images):
    images = select_baseline("centroid", backbone, train_images)
    other = select_baseline("centroid", backbone, train_images.with_classes(["class 2", "class 0", "class 1"]))
    with pytest.raises(ValueError, match="'set': sets for several seeds need the same classes in the same order"):
        Evaluator(backbone, real, None, QUICK).probe("set", [images, other], images.views)


def test_too_few_images_to_choose_by(backbone, real, train_images, caplog):
    two_of_each = Evaluator(backbone, real, train_images.balanced_sample(6, 0), QUICK)
    assert two_of_each.reference("discriminant analysis") is None and "Too few training images" in caplog.text
    assert two_of_each.reference("nearest class mean").mean > 80


def test_released_features_come_back(evaluation):
    z = evaluation.training_features[0]
    evaluation.release()
    assert "training_features" not in evaluation.__dict__ and torch.equal(evaluation.training_features[0], z)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A small CLIP with a tokenizer of whole words."""
    torch.manual_seed(0)
    words = ["[pad]", "[eos]", "[unk]", "a", "photo", "of", "class", "0", "1", "2", "."]
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": 1, "pad_token_id": 0}
    vision = {**tower, "image_size": SIDE, "patch_size": 8}
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[pad]", eos_token="[eos]", unk_token="[unk]"
    ).save_pretrained(folder)
    return str(folder)


def test_without_a_tokenizer_there_is_no_zero_shot_row(clip_folder, real, train_images, tmp_path, caplog):
    """Transformers makes a tokenizer of two words of such a folder, and all class names are alike."""
    CLIPModel.from_pretrained(clip_folder).save_pretrained(tmp_path)
    clip = FrozenBackbone.from_pretrained(str(tmp_path), image_size=SIDE, resize_ratio=1.0)
    assert Evaluator(clip, real, train_images).reference("zero-shot text") is None
    assert "No row 'zero-shot text'" in caplog.text


def test_the_zero_shot_head_is_the_cosine_with_the_prompts(clip_folder, real, train_images):
    clip = FrozenBackbone.from_pretrained(clip_folder, image_size=SIDE, resize_ratio=1.0)
    assert clip.has_text and clip.pooling == "projection"
    head = zero_shot_head(clip, ["class_1, a synonym", "class 2"])
    for row, number in enumerate((8, 9)):
        tokens = torch.tensor([[3, 4, 5, 3, 6, number, 10]])  # a photo of a class 1 .
        padded = torch.nn.functional.pad(tokens, (0, 5))
        mask = (padded != 0).long()
        with torch.no_grad():
            expected = clip.model.get_text_features(input_ids=padded, attention_mask=mask).pooler_output[0]
        torch.testing.assert_close(head[row], expected / expected.norm())
    result = Evaluator(clip, real, train_images).reference("zero-shot text")
    z = Evaluator(clip, real, train_images).scored.z
    cosine = torch.nn.functional.normalize(z, dim=1) @ zero_shot_head(clip, real.class_names).T
    assert result.mean == pytest.approx(100 * (cosine.argmax(dim=1) == real.labels).double().mean().item(), abs=0.01)
    assert result.protocol == "cosine with 'a photo of a {}.'"
