"""Sets, backbones and images in all forms that evaluations take."""

import pytest
import torch
from conftest import make_vit
from datasets import load_dataset
from sets import make_set
from transformers import AutoModel

from hf_lgm import FrozenBackbone, LabelledImages, ProbeProtocol, compare, evaluate_probe, transfer_matrix

QUICK = ProbeProtocol(epochs=5, learning_rate=1e-2, seeds=2)
SETTINGS = {"protocol": QUICK, "references": ["nearest class mean"], "baselines": ["random"], "cache": False}


@pytest.fixture
def folder(tmp_path):
    return make_set().save_pretrained(tmp_path / "set")


def pairs(dataset):
    """With names, since those of a list of numbers are the numbers."""
    names = dataset.features["label"].names
    return [(row["image"], names[row["label"]]) for row in dataset]


def test_of_all_forms_the_table_is_the_same(folder, model_folder, splits):
    loaded = load_dataset(str(folder))
    sets = {"set": make_set(), "folder": folder, "name": str(folder), "splits": loaded, "split": loaded["train"]}
    table = compare(
        sets, AutoModel.from_pretrained(model_folder), pairs(splits["train"]), pairs(splits["test"]), **SETTINGS
    )
    means = {result.training_set: result.mean for result in table.results}
    assert list(means) == ["random real images, 2 per class", *sets, "nearest class mean"]
    assert len({means[name] for name in sets}) == 1
    same = compare({"set": make_set()}, [model_folder], splits["train"], splits["test"], **SETTINGS)
    assert {result.training_set: result.mean for result in same.results}.items() <= means.items()


def test_without_training_images(backbone, splits, caplog):
    table = compare({"a": make_set()}, backbone, None, splits["test"], protocol=QUICK, cache=False)
    assert [result.training_set for result in table.results] == ["a"] and table.transfer is None
    assert table.results[0].mean == evaluate_probe(backbone, make_set(), splits["test"], protocol=QUICK).mean
    baseline = make_set(source_index=range(6)).to_publish()
    with pytest.raises(ValueError, match="'b' is rows of real images without the images: give its source as train"):
        compare({"a": make_set(), "b": baseline}, backbone, None, splits["test"])
    with pytest.raises(ValueError, match="compare needs an eval_dataset"):
        compare({"a": make_set()}, backbone, splits["train"])
    with pytest.raises(TypeError, match="Expected sets by name, such as {'distilled': set}; found DistilledSet"):
        compare(make_set(), backbone, None, splits["test"])


def test_images_to_score_on_may_number_their_classes_otherwise(backbone, splits):
    turned = LabelledImages.from_dataset(splits["test"]).with_classes(["class 2", "class 0", "class 1"])
    found = [
        compare({"a": make_set()}, backbone, splits["train"], images, **SETTINGS).to_pandas().to_dict()
        for images in (splits["test"], turned)
    ]
    assert found[0] == found[1]


def test_probes_and_matrices_take_the_same(folder, backbone, splits):
    expected = evaluate_probe(backbone, make_set(), splits["test"], protocol=QUICK)
    loaded = load_dataset(str(folder))
    for form in (loaded, loaded["train"], folder, [loaded["train"], make_set()]):
        assert evaluate_probe(backbone, form, splits["test"], protocol=QUICK).accuracies == expected.accuracies
    assert evaluate_probe(backbone, make_set(), pairs(splits["test"]), protocol=QUICK).mean == expected.mean
    other = FrozenBackbone(make_vit(1), backbone.preprocessing, name="other")
    matrix = transfer_matrix(
        [loaded, folder], [backbone, other], pairs(splits["train"]), pairs(splits["test"]), protocol=QUICK
    )
    assert matrix.accuracy[0, 0].item() == pytest.approx(expected.mean)
    assert torch.equal(matrix.accuracy[0], matrix.accuracy[1])
