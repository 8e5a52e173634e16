"""Probes as models of Transformers, for every architecture of the table whose own head sees our features."""

import pytest
import torch
from architectures import ARCHITECTURES, SIDE
from sets import make_set
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from hf_lgm import FrozenBackbone, Preprocessing
from hf_lgm.data.images import centre_crop, to_images, to_tensor
from hf_lgm.evaluation.probe_model import HEAD_FILE, ProbeModel

NAMES = ["plain", "a | b", "emoji 🐈", "two\nlines", "#7"]
# Those that have to be: others may join them as Transformers grows.
NATIVE = {
    "DINOv2",
    "DINOv2 with registers",
    "ViT",
    "DeiT",
    "ConvNeXt",
    "ResNet",
    "Swin",
    "MobileNet v1",
    "MobileNet v2",
}
ROWS = {row.name: row for row in ARCHITECTURES if not row.needs_timm}


def make_probe(backbone: FrozenBackbone) -> ProbeModel:
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(len(NAMES), backbone.dim, generator=generator)
    config = {
        "num_images": 5,
        "class_names": NAMES,
        "probe": "p",
        "backbone": backbone.describe(),
        "artifact": "probe",
    }
    return ProbeModel(backbone, W, torch.randn(len(NAMES), generator=generator), NAMES, config)


def pictures(count: int = 4):
    """Pictures of all shapes."""
    noise = to_images(torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(3)))
    return [picture.resize((SIDE * (1 + number), SIDE * 2)) for number, picture in enumerate(noise)]


@pytest.mark.parametrize("name", list(ROWS))
def test_the_model_that_is_saved_gives_our_logits(name, tmp_path):
    backbone = FrozenBackbone(ROWS[name].build(), Preprocessing(SIDE, resize_ratio=1.25))
    probe = make_probe(backbone)
    folder = probe.save_pretrained(tmp_path / "probe")
    is_native = not (folder / HEAD_FILE).exists()
    assert is_native or name not in NATIVE
    if is_native:
        inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(pictures(), return_tensors="pt")
        model = AutoModelForImageClassification.from_pretrained(folder)
        with torch.no_grad():
            theirs = model(**inputs).logits
        squares = torch.stack([to_tensor(centre_crop(picture, SIDE, 1.25)) for picture in pictures()])
        torch.testing.assert_close(theirs, probe(squares), rtol=1e-3, atol=1e-3)
        assert [model.config.id2label[label] for label in theirs.argmax(dim=1).tolist()] == probe.predict(pictures())


def test_in_a_pipeline(tmp_path):
    backbone = FrozenBackbone(ROWS["DINOv2"].build(), Preprocessing(SIDE, resize_ratio=1.25))
    probe = make_probe(backbone)
    classify = pipeline("image-classification", model=str(probe.save_pretrained(tmp_path / "probe")))
    assert [answers[0]["label"] for answers in classify(pictures())] == probe.predict(pictures())


def test_a_head_and_its_loader(tmp_path):
    folder = tmp_path / "tiny-clip"
    ROWS["CLIP"].build().save_pretrained(folder)
    probe = make_probe(FrozenBackbone.from_pretrained(str(folder)))
    saved = probe.save_pretrained(tmp_path / "probe")
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md", HEAD_FILE, "lgm_config.json", "results.json"
    ]  # fmt: skip
    assert ProbeModel.from_pretrained(str(saved)).predict(pictures()) == probe.predict(pictures())
    assert "ProbeModel.from_pretrained" in (saved / "README.md").read_text()
    with pytest.raises(FileNotFoundError, match="has no head.safetensors"):
        ProbeModel.from_pretrained(str(folder))


def test_the_first_of_the_probes_that_a_set_is_evaluated_by(backbone, splits):
    from hf_lgm import evaluate_probe
    from hf_lgm.settings import ProbeProtocol

    images = make_set()
    probe = ProbeModel.train_on(backbone, images)
    squares = torch.stack([to_tensor(centre_crop(row["image"], 16, 1.0)) for row in splits["test"]])
    labels = torch.tensor(splits["test"]["label"][:])
    accuracy = (probe(squares).argmax(dim=1) == labels).float().mean() * 100
    expected = evaluate_probe(backbone, images, splits["test"], protocol=ProbeProtocol(seeds=1)).mean
    assert accuracy.item() == pytest.approx(expected, abs=0.01)


def test_a_module_of_images_or_features(backbone, splits):
    probe = ProbeModel.train_on(backbone, make_set())
    images = splits["test"]["image"][:]
    z = backbone.encode(images)
    expected = z @ probe.weight.T + probe.bias
    crops = torch.stack([to_tensor(image) for image in images])
    for found in (probe(images), probe(splits["test"]), probe(crops), probe(crops / 255), probe(features=z)):
        torch.testing.assert_close(found, expected)
    names = [probe.class_names[label] for label in expected.argmax(dim=1)]
    assert probe.predict(images) == probe.predict(features=z) == names and probe.predict(images[0]) == names[:1]
    pixels = (crops[:1] / 255).requires_grad_()
    probe.train()(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0 and not probe.training and not list(filter(requires_grad, probe.parameters()))
    assert {"weight", "bias"} <= set(probe.state_dict()) and "classes=3, features=24" in repr(probe)
    with pytest.raises(TypeError, match="Give either images or features"):
        probe()


def requires_grad(parameter):
    return parameter.requires_grad


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_in_scikit_learn(backbone, classes):
    generator = torch.Generator().manual_seed(2)
    W, b = torch.randn(classes, 24, generator=generator), torch.randn(classes, generator=generator)
    probe = ProbeModel(backbone, W, b, NAMES[:classes])
    classifier, z = probe.to_sklearn(), torch.randn(50, 24, generator=generator)
    assert classifier.predict(z.numpy()).tolist() == probe.predict(features=z)
    assert classifier.classes_.tolist() == NAMES[:classes]
    probabilities = torch.from_numpy(classifier.predict_proba(z.numpy())).float()
    torch.testing.assert_close(probabilities, probe(features=z).softmax(dim=1), rtol=1e-4, atol=1e-5)
    if classes > 2:
        assert torch.equal(torch.from_numpy(classifier.coef_).float(), W)
        assert torch.equal(torch.from_numpy(classifier.intercept_).float(), b)
