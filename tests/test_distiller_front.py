"""What a Python user gives a distiller, and what is said of what can't be meant."""

import pytest
from transformers import TrainerCallback

from hf_lgm import LGMConfig, LGMDistiller


@pytest.fixture
def make(backbone, splits, tmp_path):
    """A distiller of two small steps; what it is given on top."""

    def distiller(train=None, test=None, model=None, settings=None, **given):
        small = {"max_steps": 2, "views_per_step": 2, "save_strategy": "no", "disable_tqdm": True}
        args = LGMConfig(output_dir=str(tmp_path / "out"), **(small | (settings or {})))
        return LGMDistiller(model or backbone, args, train or splits["train"], test, **given)

    return distiller


class Count(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def test_callbacks_come_and_go_as_trainers_do(make):
    distiller, stays = make(), Count()
    distiller.add_callback(Count)
    distiller.add_callback(stays)
    popped = distiller.pop_callback(Count)
    assert isinstance(popped, Count) and popped is not stays
    distiller.train()
    assert (popped.steps, stays.steps) == (0, 2)
    distiller.remove_callback(stays)
    assert distiller.pop_callback(Count) is None
    distiller.train()
    assert stays.steps == 2
