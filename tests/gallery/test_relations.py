"""What a backbone says of a set, against the same computed in another way."""

import numpy as np
import pytest
import torch
from conftest import make_dataset

from hf_lgm import DistilledSet, LabelledImages, ProbeModel, select_baseline
from hf_lgm.gallery.relations import relations_of


@pytest.fixture
def eval_images(splits):
    return LabelledImages.from_dataset(splits["test"])


@pytest.fixture
def chosen(backbone, train_images):
    """Two real images of each class."""
    return select_baseline("random", backbone, train_images, 2)


@pytest.fixture
def relations(chosen, backbone, train_images, eval_images):
    return relations_of(chosen, backbone, train_images, eval_images)


def test_a_real_image_is_nearest_to_itself(chosen, relations):
    for image, near in zip(chosen, relations.real, strict=True):
        assert (near[0].row, near[0].label) == (image["source_index"], image["label"])
        assert near[0].similarity == pytest.approx(1, abs=1e-5)
        values = [each.similarity for each in near]
        assert len(near) == 6 and values == sorted(values, reverse=True) and near[0].image is None


def test_neighbours_in_the_set(chosen, backbone, relations):
    z = backbone.encode(chosen.dataset["image"][:]).double().numpy()
    cosines = z @ z.T / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(z, axis=1))
    np.fill_diagonal(cosines, -2)
    for row, found in enumerate(relations.synthetic):
        assert len(found) == 5 and row not in dict(found)
        assert found[0][0] == cosines[row].argmax()
        assert found[0][1] == pytest.approx(cosines[row].max(), abs=1e-4)


def test_confusions_are_the_predictions_of_the_probe(chosen, backbone, splits, relations):
    predicted = ProbeModel.train_on(backbone, chosen).predict(splits["test"]["image"][:])
    expected = torch.zeros(3, 3, dtype=torch.long)
    for name, label in zip(predicted, splits["test"]["label"][:], strict=True):
        expected[label, chosen.class_names.index(name)] += 1
    assert torch.equal(relations.confusions, expected)


def test_real_images_themselves_when_asked_for(chosen, backbone, train_images, eval_images, splits):
    found = relations_of(chosen, backbone, train_images, eval_images, include_source_images=True)
    first = found.real[0][0]
    expected = splits["train"][first.row]["image"].resize(first.image.size)
    assert np.abs(np.asarray(first.image, dtype=float) - np.asarray(expected, dtype=float)).mean() < 2


def test_rows_without_images_are_looked_up(chosen, relations, backbone, train_images, eval_images):
    published = chosen.without_images()
    found = relations_of(published, backbone, train_images, eval_images)
    assert [[each.row for each in near] for near in found.real] == [
        [each.row for each in near] for near in relations.real
    ]
    assert torch.equal(found.confusions, relations.confusions)


def test_classes_are_numbered_as_in_the_set(chosen, backbone, train_images, eval_images, relations):
    names = chosen.class_names[::-1]
    turned = DistilledSet.from_pixels(chosen.pixels(), (2 - chosen.labels).tolist(), names, chosen.config)
    found = relations_of(turned, backbone, train_images, eval_images)
    assert [near[0].label for near in found.real] == turned.labels.tolist()
    assert torch.equal(found.confusions.sum(dim=1), relations.confusions.sum(dim=1).flip(0))


def test_other_classes_are_refused(backbone, train_images, eval_images):
    other = LabelledImages.from_dataset(make_dataset(classes=4))
    small = select_baseline("random", backbone, other)
    with pytest.raises(ValueError, match="other classes than the dataset"):
        relations_of(small, backbone, train_images, eval_images)
