"""A run that has ended may be made longer: with the same bits where nothing depends on its length, else honestly."""

import json

import pytest
import torch

from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.distillation.checkpoint_folders import all_checkpoints
from hf_lgm.schedule import learning_rate_factor

# With these no step depends on how many there will be.
OF_ANY_LENGTH = {"lr_scheduler_type": "constant", "growth_steps": 2, "init": "noise", "init_weight": 0.0}


@pytest.fixture
def make(backbone, splits, tmp_path):
    def distiller(folder="out", max_steps=6, **settings):
        settings = {"views_per_step": 2, "save_steps": 3, "disable_tqdm": True, **settings}
        args = LGMConfig(output_dir=str(tmp_path / folder), max_steps=max_steps, **settings)
        return LGMDistiller(backbone, args, splits["train"])

    return distiller


def made_longer(make, way, to, **settings):
    """A run of six steps that goes on."""
    distiller = make(save_strategy="no" if way == "in memory" else "steps", **settings)
    distiller.train()
    if way == "a new distiller":
        distiller = make(max_steps=to, **settings)
        distiller.train(resume_from_checkpoint=True)
    else:
        distiller.args.max_steps = to
        distiller.train(resume_from_checkpoint=True if way == "asked to" else None)
    assert distiller.state.global_step == to
    return distiller


@pytest.mark.parametrize("way", ["in memory", "beside its checkpoints", "asked to", "a new distiller"])
def test_where_nothing_depends_on_the_length_it_is_the_run_of_that_length(make, way):
    longer, whole = made_longer(make, way, 10, **OF_ANY_LENGTH), make("whole", max_steps=10, **OF_ANY_LENGTH)
    whole.train()
    assert len(longer.images.levels) == len(whole.images.levels) == 5
    assert torch.equal(longer.images(), whole.images())


def test_the_schedule_is_of_the_new_length_from_there_on(make, caplog):
    distiller, rates = make(save_strategy="no"), []
    step = type(distiller.learned).step

    def noted(learned, number):
        step(learned, number)
        rates.append(learned.optimizer.param_groups[0]["lr"] / distiller.args.learning_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(distiller.learned), "step", noted)
        distiller.train()
        distiller.args.max_steps = 12
        distiller.train()
    short, long = (learning_rate_factor("warmup_stable_decay", steps) for steps in (6, 12))
    wanted = [short(number) for number in range(6)] + [long(number) for number in range(6, 12)]
    assert rates == pytest.approx(wanted)
    assert rates[5] < 0.5 and rates[6] == 1
    assert "max_steps was 6 and is 12. From step 6 on" in caplog.text and "not a run of 12 steps" in caplog.text
    folder = distiller.save_model()
    assert json.loads((folder / "lgm_config.json").read_text())["run"]["length_changed_at"] == [6]
    assert "12 steps in" in (card := (folder / "README.md").read_text()) and "was changed at step 6 |" in card


def test_a_longer_run_is_resumed_with_the_same_bits(make, tmp_path):
    """Killed after it was made longer, and begun again at a checkpoint from then."""
    longer = made_longer(make, "a new distiller", 12, save_total_limit=0)
    resumed = make(max_steps=12)
    resumed.train(resume_from_checkpoint=tmp_path / "out" / "checkpoint-9")
    assert torch.equal(resumed.images(), longer.images())
    assert resumed.state.log_history == longer.state.log_history
    assert [log["step"] for log in resumed.state.log_history if "max_steps" in log] == [6]


def test_what_is_done_stays_done(make, tmp_path):
    make().train()
    message = "at step 6 has done more than max_steps=5: give 6 or more, another output_dir, or give the run there up"
    with pytest.raises(ValueError, match=message):
        make(max_steps=5).train(resume_from_checkpoint=True)
    assert [path.name for path in all_checkpoints(tmp_path / "out")] == ["checkpoint-3", "checkpoint-6"]
    shorter = make(max_steps=5)
    shorter.train(resume_from_checkpoint=tmp_path / "out" / "checkpoint-3")
    assert shorter.state.global_step == 5


def test_nothing_else_may_change_with_the_length(make):
    distiller = make(save_strategy="no")
    distiller.train()
    distiller.args.max_steps, distiller.args.learning_rate = 8, 0.5
    with pytest.raises(ValueError, match="made with other settings: learning_rate=0.02 there, 0.5 now"):
        distiller.train()


def test_without_more_steps_a_run_begins_again(make):
    distiller = make(save_strategy="no")
    distiller.train()
    before = distiller.images().detach().clone()
    distiller.train()
    assert torch.equal(distiller.images(), before) and not any(
        "max_steps" in log for log in distiller.state.log_history
    )
