"""What the table at the end of a run is said to take."""

from dataclasses import replace

import pytest

from hf_lgm import LGMConfig
from hf_lgm.distillation.planning import DatasetSize, plan
from hf_lgm.evaluation import planning
from hf_lgm.evaluation.planning import evaluation_seconds

SIZE = DatasetSize(num_classes=5, num_train=1_000, num_eval=200)


@pytest.fixture
def ticks(monkeypatch):
    """Each timed pass takes a second."""
    monkeypatch.setattr(planning, "seconds_of", lambda work, device: (work(), 1.0)[1])


def test_it_is_counted(backbone, tmp_path, ticks):
    """A second for 20 views, for 20 epochs of probes, and for five L-BFGS steps on all 1,000 images."""
    args = LGMConfig(str(tmp_path), images_per_class=2, eval_seeds=3)
    views = 3 * 3 * 50 * 10 / 20  # three sets, three seeds, fifty views of ten images
    probes = 3 * 1000 / 20
    all_real = (6 * 0.8 + 1) * 200 / 5
    alone = views + probes + all_real
    assert evaluation_seconds([backbone], args, SIZE, 1) == pytest.approx(alone)
    encoding = 1_200 / 20
    assert evaluation_seconds([backbone, backbone], args, SIZE, 1) == pytest.approx(2 * alone + encoding)


def test_a_plan_has_it(backbone, tmp_path):
    args = LGMConfig(str(tmp_path), eval_seeds=2)
    seconds = evaluation_seconds([backbone], args, SIZE, 1)
    found = plan(backbone, args, SIZE)
    counted = replace(found, evaluation_seconds=seconds)
    assert seconds > 0 and counted.seconds == pytest.approx(found.seconds + seconds)
    assert "the table: " in str(counted) and "without evaluation" not in str(counted)
