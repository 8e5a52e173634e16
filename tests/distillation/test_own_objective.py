"""An objective of a user's own: the gradient of ours where it says the same, and one sentence where it is none."""

import functools
import json

import pytest
import torch
import torch.nn.functional as F

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.distillation.objectives import LabelledFeatures, feature_gradient, uniform_weights


def matched_gradients(synthetic, real, W):
    """The paper's objective by autograd alone, as a user may write it down."""

    def gradient(features):
        features = features.by_cluster
        probe, bias = W.clone().requires_grad_(), W.new_zeros(len(W)).requires_grad_()
        logits = features.z.to(W) @ probe.T + bias
        each = logits.logsumexp(dim=1) - (features.targets(len(W)).to(W) * logits).sum(dim=1)
        parts = torch.autograd.grad((each * features.weight).sum(), [probe, bias], create_graph=True)
        return torch.cat([part.flatten() for part in parts])

    return 1 - F.cosine_similarity(gradient(synthetic), gradient(real).detach(), dim=0)


def means_apart(synthetic, real, W):
    """Squared distances of class means: of y, and no probe."""

    def means(features):
        share = features.targets(3).to(W) * features.weight[:, None].to(W)
        return (share.T @ features.z.to(W)) / share.sum(dim=0)[:, None]

    return (means(synthetic) - means(real)).square().sum()


@pytest.fixture
def make(deep, splits, tmp_path):
    def distiller(own=None, folder="out", **settings):
        small = {"max_steps": 3, "views_per_step": 2, "save_strategy": "no", "disable_tqdm": True}
        args = LGMConfig(str(tmp_path / folder), **(small | settings))
        return LGMDistiller(deep, args, splits["train"], objective=own)

    return distiller


def levels(distiller):
    distiller.train()
    return [level.detach() for level in distiller.images.levels]


def assert_near(found, wanted):
    assert max(level.abs().max() for level in wanted) > 0.1
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


def test_the_gradient_is_that_of_the_built_in_one():
    generator = torch.Generator().manual_seed(0)
    z, real_z, W = (torch.randn(n, 8, dtype=torch.float64, generator=generator) for n in (6, 30, 3))
    y, real_y = F.one_hot(torch.arange(6) % 3, 3).double(), torch.arange(30) % 3
    soft = (0.9 * y + 0.1 / 3).requires_grad_()
    real = LabelledFeatures(real_z, real_y, uniform_weights(real_y).double())
    found, wanted = (
        feature_gradient(LabelledFeatures(z, soft, uniform_weights(y).double()), real, W, objective)
        for objective in (matched_gradients, "lgm")
    )
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"images_per_class": 2},  # clusters
        {"images_per_class": 2, "cluster_classes": False, "label_learning_rate": 0.1},
        {"real_features": "online"},
        {"images_per_class": 2, "real_images_per_class": 1},
    ],
    ids=str,
)
def test_a_run_by_the_same_objective_makes_the_same_images(make, settings):
    settings = {"objective": "lgm", "layers": 0, "adam_epsilon": 1e-3, **settings}  # not to enlarge what is nothing
    assert_near(levels(make(matched_gradients, "own", **settings)), levels(make(**settings)))


@pytest.mark.parametrize("images_per_class", [1, 2])
def test_it_is_called_in_each_space_and_chunks_do_not_matter(make, images_per_class):
    called = []

    def noted(synthetic, real, W):
        called.append((synthetic.z.shape[1], len(real.z), len(W), int(real.y.max())))
        return means_apart(synthetic, real, W)

    first = make(noted, "whole", images_per_class=images_per_class)
    spaces = len(first.backbones[0].widths)
    groups = 3 * images_per_class
    assert spaces == 4 and len(called) == 4  # the trial
    assert {rows for _, rows, _, _ in called[1:]} == {groups} and {most for *_, most in called} == {2}
    whole = levels(first)
    assert called[4:8] == [(16, 24, groups, 2)] + 3 * [(16, groups, groups, 2)]
    assert len(called) == 4 * (1 + 3)
    assert_near(levels(make(noted, "chunks", images_per_class=images_per_class, chunk_size=1)), whole)


def test_files_say_its_name(make, splits, deep):
    """And a run goes on by an objective of the same name only."""
    distiller = make(functools.partial(means_apart), save_strategy="steps", max_steps=2)
    distiller.train()
    folder = distiller.save_model()
    said = json.loads((folder / "lgm_config.json").read_text())
    assert said["settings"]["objective"] == "means_apart" and "objective" in said["changed_settings"]
    card = (folder / "README.md").read_text()
    assert "`objective=means_apart`" in card and "peng2026clpdd" not in card
    make(means_apart, max_steps=2).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="objective='means_apart' there, 'ridge' now"):
        make(max_steps=2).train(resume_from_checkpoint=True)


def ridge(synthetic, real, W):
    return means_apart(synthetic, real, W)


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        ("lgm", TypeError, r"a function of \(synthetic, real, W\), found 'lgm'; the names lgm and ridge go into"),
        (torch.nn.MSELoss, TypeError, "Expected as objective a function .*, found type"),
        (ridge, ValueError, "A function called ridge can't be told from LGMConfig.objective='ridge'.: rename it"),
        (lambda synthetic, real: 0, ValueError, "fails on random features .*takes 2 positional arguments but 3"),
        (lambda s, r, W: s.z @ W, ValueError, r"fails on random features \(synthetic.z of shape \(3, 16\), .*float64"),
        (lambda s, r, W: s.z, ValueError, r"must return a finite scalar tensor, found shape \(3, 16\)"),
        (lambda s, r, W: 1.0, ValueError, "must return a finite scalar tensor, found 1.0"),
        (lambda s, r, W: s.z.sum() / 0, ValueError, r"must return a finite scalar tensor, found tensor\(-?inf"),
        (lambda s, r, W: s.z.detach().sum(), ValueError, "does not depend on synthetic.z by autograd"),
        (lambda s, r, W: (s.z * 0).sum().sqrt(), ValueError, "gradient of .* on synthetic.z is not finite"),
    ],
)
def test_what_can_not_be_one_is_said_before_any_work(make, objective, error, message):
    with pytest.raises(error, match=message):
        make(objective)


def test_labels_can_not_be_learned_by_what_does_not_take_them(make):
    with pytest.raises(ValueError, match="does not depend on synthetic.y by autograd, and label_learning_rate asks"):
        make(lambda s, r, W: s.z.square().mean(), label_learning_rate=0.1)


def test_the_config_stays_plain_data():
    with pytest.raises(ValueError, match="objective is lgm or ridge here: a function goes to LGMDistiller"):
        LGMConfig(objective=means_apart)
