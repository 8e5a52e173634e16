"""What a run says of its own numbers."""

import pytest
import torch

from hf_lgm.distillation.watch import LossWatch

GRADIENT = torch.ones(2, 3, 4, 4)


@pytest.fixture
def watch():
    return LossWatch(torch.device("cpu"))


@pytest.mark.parametrize(
    ("step", "advice"), [(0, "from the features of the model, or from an objective"), (3, "smaller learning_rate")]
)
@pytest.mark.parametrize("of", ["loss", "gradient"])
def test_the_advice_fits_the_cause(watch, tmp_path, step, advice, of):
    nan = torch.tensor(torch.nan)
    watch.note(nan if of == "loss" else torch.tensor(1.0), step, GRADIENT * nan if of == "gradient" else GRADIENT)
    watch.note(nan, step + 1, GRADIENT)
    message = rf"in step {step}\. Last good checkpoint: none\. .*{advice}"
    with pytest.raises(FloatingPointError, match=message) as found:
        watch.check(tmp_path)
    assert ("learning_rate" in str(found.value)) == (step > 0)


def test_a_gradient_of_zero_is_said_once(watch, tmp_path, caplog):
    for step in range(3):
        watch.note(torch.tensor(1.0 - step / 10), step, GRADIENT * (step != 1))
        watch.check(tmp_path)
    assert caplog.text.count("The gradient on the images is zero in step 1: they do not change") == 1


def test_a_process_without_images_has_no_gradient(watch, tmp_path, caplog):
    watch.note(torch.tensor(1.0), 0, GRADIENT[:0])
    watch.check(tmp_path)
    assert not caplog.text


@pytest.mark.parametrize("moves_at", [None, 1, 49])
def test_a_loss_that_stays_the_same_is_said_once(watch, tmp_path, caplog, moves_at):
    for step in range(120):
        watch.note(torch.tensor(0.5 if moves_at is None or step < moves_at else 0.4), step, GRADIENT)
        watch.check(tmp_path)
    assert caplog.text.count("The loss has been the same in all 50 steps") == (moves_at is None)
