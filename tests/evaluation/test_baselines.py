"""Real images as sets: that they are what they say."""

from dataclasses import replace

import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from sklearn.cluster import KMeans

from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, Preprocessing, StreamEncoder, select_baseline
from hf_lgm.evaluation.baselines import real_image_set, with_source_images
from hf_lgm.features.coresets import (
    centroid_rows,
    class_means,
    herding_rows,
    kmeans_rows,
    neighbor_rows,
    random_rows,
)

CLASSES = 3


@pytest.fixture
def features():
    y = torch.arange(CLASSES).repeat_interleave(torch.tensor([30, 20, 25]))
    return torch.randn(75, 5, generator=torch.Generator().manual_seed(0)) + y[:, None], y


def test_random_rows_are_drawn_by_the_seed(features):
    _, y = features
    rows = random_rows(y, CLASSES, 2, seed=0)
    assert y[rows].tolist() == [0, 0, 1, 1, 2, 2] and len(set(rows.tolist())) == 6
    assert not torch.equal(rows, random_rows(y, CLASSES, 2, seed=1))


def test_centroid_rows_are_nearest_to_their_class_mean(features):
    z, y = features
    rows = centroid_rows(z, y, CLASSES, 3).view(CLASSES, 3)
    distance = (z - class_means(z, y, CLASSES)[y]).norm(dim=1)
    for label in range(CLASSES):
        assert torch.equal(distance[rows[label]], distance[y == label].sort().values[:3])


def test_with_one_image_kmeans_and_herding_are_the_centroid(features):
    z, y = features
    centroid = centroid_rows(z, y, CLASSES, 1)
    assert torch.equal(kmeans_rows(z, y, CLASSES, 1), centroid) and torch.equal(
        herding_rows(z, y, CLASSES, 1), centroid
    )


def test_kmeans_rows_are_nearest_to_scikit_learns_centres(features):
    z, y = features
    rows = kmeans_rows(z, y, CLASSES, 4, seed=3).view(CLASSES, 4)
    for label in range(CLASSES):
        centres = torch.from_numpy(KMeans(4, n_init=10, random_state=3).fit(z[y == label].numpy()).cluster_centers_)
        distance = torch.cdist(centres, z)
        distance[:, y != label] = torch.inf
        assert len(set(rows[label].tolist())) == 4
        assert all(distance[i, row] == distance[i].min() for i, row in enumerate(rows[label].tolist()))


def test_herding_rows_keep_the_mean_near_the_class_mean(features):
    z, y = features
    rows = herding_rows(z, y, CLASSES, 5).view(CLASSES, 5)
    for label in range(CLASSES):
        mean, taken = z[y == label].mean(dim=0), []
        for row in rows[label].tolist():
            others = [other for other in (y == label).nonzero()[:, 0].tolist() if other not in taken]
            best = min(others, key=lambda other: (z[[*taken, other]].mean(dim=0) - mean).norm())  # noqa: B023
            assert row == best
            taken.append(row)


def test_neighbours_are_the_most_similar_of_their_class_and_stand_once(features):
    z, y = features
    z_set, labels = torch.cat([z[[3, 40]] * 2, z[[40]] * 3]), torch.tensor([0, 1, 1])
    rows = neighbor_rows(z, y, z_set, labels)
    assert rows[:2].tolist() == [3, 40] and y[rows[2]] == 1 and rows[2] != 40
    cosine = torch.nn.functional.cosine_similarity(z_set[2:], z)
    cosine[(y != 1) | (torch.arange(75) == 40)] = -1
    assert rows[2] == cosine.argmax()


@pytest.mark.parametrize("kind", ["random", "centroid", "kmeans", "herding", "matched"])
def test_a_baseline_is_a_set_like_a_distilled_one(kind, backbone, train_images, tmp_path):
    chosen = select_baseline(kind, backbone, train_images, 2, config={"settings": {"flip": False}})
    folder = chosen.save_pretrained(tmp_path / kind)
    read = DistilledSet.from_pretrained(folder)
    assert read.is_real and read.images_per_class == 2 and read.labels.tolist() == [0, 0, 1, 1, 2, 2]
    described = {"kind": kind, "images_per_class": 2, "seed": 0, "resize_ratio": 1.0}
    assert read.config["baseline"] == described and not read.views.flip
    for row, source in enumerate(read.dataset["source_index"][:]):
        assert read.dataset[row]["image"].tobytes() == train_images.image(source).tobytes()
        assert train_images.labels[source] == read.labels[row]
    assert "real images" in (folder / "README.md").read_text()


def test_neighbours_of_a_set_of_real_images_are_those_images(backbone, train_images, tmp_path):
    chosen = select_baseline("random", backbone, train_images, 2)
    folder = str(chosen.save_pretrained(tmp_path))
    near = select_baseline("neighbor", backbone, train_images, neighbors_of=folder)
    assert near.config["baseline"]["images_per_class"] == 2
    assert near.dataset["source_index"][:] == chosen.dataset["source_index"][:]


def test_what_can_not_be_chosen_is_refused(backbone, train_images):
    with pytest.raises(ValueError, match="kind must be one of random, centroid, .*, found 'best'"):
        select_baseline("best", backbone, train_images)
    with pytest.raises(ValueError, match="images_per_class=9 is more than the 8 real images of class 'class 0'"):
        select_baseline("centroid", backbone, train_images, 9)
    with pytest.raises(ValueError, match="images_per_class must be at least 1, found 0"):
        select_baseline("random", backbone, train_images, 0)
    with pytest.raises(ValueError, match="kind='neighbor' and neighbors_of belong together"):
        select_baseline("neighbor", backbone, train_images)
    other = select_baseline("random", backbone, LabelledImages.from_dataset(make_dataset(classes=2)))
    with pytest.raises(ValueError, match="The set has other classes than the dataset: missing class 2"):
        select_baseline("neighbor", backbone, train_images, neighbors_of=other)


def test_of_a_stream_only_random_images_can_be_had(backbone):
    images = StreamEncoder([backbone]).encode(make_dataset().to_iterable_dataset())
    assert len(select_baseline("random", backbone, images, 2).dataset) == 6
    with pytest.raises(ValueError, match="a stream is read once: do not stream it"):
        select_baseline("centroid", backbone, images)


def test_images_have_the_geometry_of_the_backbone(backbone, train_images):
    assert select_baseline("random", backbone, train_images).dataset[0]["image"].size == (SIDE, SIDE)


@pytest.fixture
def cropping():
    """A backbone whose own resize cuts half of each side off."""
    return FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=2.0), name="cropping")


@pytest.mark.parametrize("kind", ["random", "centroid", "kmeans", "herding", "matched", "neighbor"])
def test_real_images_keep_the_whole_square(kind, cropping, train_images):
    """Whatever the resize of the backbone they are chosen through cuts off: a distilled image has its edges too."""
    near = select_baseline("centroid", cropping, train_images) if kind == "neighbor" else None
    chosen = select_baseline(kind, cropping, train_images, neighbors_of=near)
    for row, source in enumerate(chosen.dataset["source_index"][:]):
        assert chosen.dataset[row]["image"].tobytes() == train_images.image(source).tobytes()
    if near:  # through the same backbone an image is most like itself
        assert chosen.dataset["source_index"][:] == near.dataset["source_index"][:]


def test_published_rows_are_rebuilt_as_they_were(cropping, train_images):
    """Whole squares; of earlier versions, which do not say so, what their backbone's resize left."""
    now = select_baseline("random", cropping, train_images)
    rows = torch.tensor(now.dataset["source_index"][:])
    described = {name: value for name, value in now.config["baseline"].items() if name != "resize_ratio"}
    before = real_image_set(train_images, rows, SIDE, 2.0, {**now.config, "baseline": described})
    assert before.fingerprint != now.fingerprint
    for images in (now, before):
        config = {**images.config, "images_sha256": images.fingerprint}
        published = replace(images, dataset=images.dataset.remove_columns("image"), config=config)
        assert not published.has_images
        assert with_source_images(published, train_images).fingerprint == images.fingerprint
