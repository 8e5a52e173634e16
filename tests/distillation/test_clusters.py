"""Several images of a class that stand for clusters of it."""

import torch
from conftest import SIDE

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.features.coresets import class_clusters


def test_clusters_are_numbered_by_class_and_are_those_of_the_data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    which = torch.arange(60) // 3 % 2
    z = torch.randn(60, 5, generator=generator) + 20 * which[:, None] * torch.tensor([1.0, -1, 1, 1, 1])
    cluster = class_clusters(z, y, 3, 2, seed=0)
    assert torch.equal(cluster // 2, y)
    for label in range(3):
        of_class = cluster[y == label] % 2
        assert torch.equal(of_class, which[y == label]) or torch.equal(of_class, 1 - which[y == label])
    assert torch.equal(class_clusters(z, y, 3, 2, seed=0), cluster)


def test_every_cluster_has_a_sample_where_there_are_fewer_distinct_ones():
    z = torch.tensor([[0.0, 0], [0, 0], [5, 5], [1, 1], [1, 1], [1, 1]])
    cluster = class_clusters(z, torch.tensor([0, 0, 0, 1, 1, 1]), 2, 3, seed=0)
    assert sorted(cluster.tolist()) == [0, 1, 2, 3, 4, 5]


def distil(backbone, splits, folder, **settings):
    args = LGMConfig(
        str(folder), images_per_class=2, max_steps=60, views_per_step=2, init="noise", disable_tqdm=True, **settings
    )
    distiller = LGMDistiller(backbone, args, splits["train"], splits["test"])
    distiller.train()
    return distiller


def test_images_of_a_class_differ_more_than_without(backbone, splits, tmp_path):
    def spread(distiller):
        z = distiller.backbones[0](distiller.images()[..., :SIDE, :SIDE]).detach()
        return (z[0::2] - z[1::2]).norm(dim=1).mean()

    features_alone = {"objective": "lgm", "layers": 0, "view_sizes": []}
    clustered = distil(backbone, splits, tmp_path / "clustered", **features_alone)
    not_clustered = distil(backbone, splits, tmp_path / "not", cluster_classes=False, **features_alone)
    assert spread(clustered) > 1.2 * spread(not_clustered)
    losses = [log["loss"] for log in clustered.state.log_history]
    assert losses[-1] < 0.9 * losses[0]


def test_the_ridge_objective_takes_clusters_and_soft_labels(backbone, splits, tmp_path):
    distiller = distil(backbone, splits, tmp_path, objective="ridge", label_learning_rate=1e-3)
    losses = [log["loss"] for log in distiller.state.log_history]
    assert losses[-1] < 0.8 * losses[0]
    assert distiller.evaluate()["eval_accuracy"] > 80  # three colours
    assert distiller.distilled_set().has_soft_labels
