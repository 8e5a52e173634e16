"""The learning rate over a run, by Transformers' names."""

import pytest

from hf_lgm import LGMConfig
from hf_lgm.schedule import learning_rate_factor


def test_constant_for_half_of_the_run_then_straight_to_zero():
    factor = learning_rate_factor("warmup_stable_decay", 10)
    assert [factor(step) for step in range(11)] == pytest.approx([1] * 6 + [0.8, 0.6, 0.4, 0.2, 0])
    odd = learning_rate_factor("warmup_stable_decay", 7)
    assert [odd(step) for step in range(7)] == pytest.approx([1] * 4 + [0.75, 0.5, 0.25])


def test_transformers_other_schedules():
    assert {learning_rate_factor("constant", 9)(step) for step in range(9)} == {1.0}
    linear = learning_rate_factor("linear", 4)
    assert [linear(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert learning_rate_factor("cosine", 10)(5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fast", "lr_scheduler_type='fast' can't be used here"),
        ("cosine_with_min_lr", "can't be used here"),
        ("reduce_lr_on_plateau", "needs more than the step"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        LGMConfig(lr_scheduler_type=name)
