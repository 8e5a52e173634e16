import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import run_distiller
import torch
from conftest import ROOT, SIDE, make_dataset, make_vit
from datasets import load_dataset
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_lgm import DistilledSet, FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing, ProbeProtocol
from hf_lgm.distillation.checkpoint import Checkpoint
from hf_lgm.distillation.checkpoint_folders import all_checkpoints


@pytest.fixture
def make(backbone, splits, tmp_path):
    """A distiller of twelve small steps; settings on top."""

    def distiller(folder="out", model=None, callbacks=None, **settings):
        settings = {"max_steps": 12, "views_per_step": 3, "save_steps": 4, "disable_tqdm": True, **settings}
        args = LGMConfig(output_dir=str(tmp_path / folder), **settings)
        return LGMDistiller(model or backbone, args, splits["train"], splits["test"], callbacks=callbacks)

    return distiller


def levels_of(distiller):
    return [level.detach().clone() for level in distiller.images.levels]


def assert_same_bits(a, b):
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step
        return control


class Signal(TrainerCallback):
    def __init__(self, step, signum):
        self.step, self.signum = step, signum

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.signum)


def test_two_backbones_of_one_name_are_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match="Two backbones have the same name: tiny-dinov2, tiny-dinov2"):
        LGMDistiller(
            [backbone, FrozenBackbone(make_vit(1), backbone.preprocessing, name="tiny-dinov2")],
            LGMConfig(str(tmp_path)),
            make_dataset(),
        )


def test_the_loss_falls_and_the_images_train_a_probe(make):
    distiller = make(init="noise", max_steps=60, learning_rate=0.02)
    distiller.train()
    losses = [log["loss"] for log in distiller.state.log_history]
    assert losses[-1] < 0.5 * losses[0]
    metrics = distiller.evaluate()
    assert metrics["eval_accuracy"] > 80  # three colours; chance is 33
    assert set(metrics) == {"eval_accuracy", "eval_accuracy_std"}  # no top-5 with three classes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"images_per_class": 2},
        {"images_per_class": 3, "real_images_per_class": 1, "init": "centroid"},
        {"images_per_class": 2, "real_images_per_class": 1, "real_features": "online", "objective": "lgm"},
        {"parameterization": "pixel"},
        {"init": "centroid"},
        {"init": "random", "parameterization": "pixel"},
        {"init": "noise", "layers": 0, "view_sizes": [], "lr_scheduler_type": "constant"},
        {"init": "noise", "objective": "lgm"},
        {"real_features": "online", "objective": "lgm"},
        {"probe_std": 0.0},
        {"eval_strategy": "steps", "eval_steps": 5, "eval_seeds": 1},
    ],
)
def test_the_same_seed_gives_the_same_bits_also_when_resumed(make, settings):
    whole, stopped, resumed = (make(name, **settings) for name in ("whole", "broken", "broken"))
    whole.train()
    stopped.callback_handler.add_callback(StopAt(7))
    stopped.train()
    output = resumed.train(resume_from_checkpoint=True)  # from step 4, not 7
    assert output.global_step == 12
    assert_same_bits(levels_of(resumed), levels_of(whole))
    assert resumed.state.log_history == whole.state.log_history
    assert len(whole.images.levels) == len(whole.images.sides)


def test_another_seed_gives_other_images(make):
    first, second = make("a", max_steps=2), make("b", max_steps=2, seed=1)
    first.train(), second.train()
    assert not torch.equal(first.images(), second.images())


def test_chunks_give_the_same_images(backbone, splits, tmp_path):
    def levels(chunk_size):
        args = LGMConfig(
            str(tmp_path / "out"), max_steps=5, chunk_size=chunk_size, save_strategy="no", disable_tqdm=True
        )
        distiller = LGMDistiller(backbone.double(), args, splits["train"])
        distiller.train()
        return levels_of(distiller)

    for one, many in zip(levels(None), levels(2), strict=True):
        torch.testing.assert_close(one, many, rtol=0, atol=1e-12)


def test_growth_is_spread_over_its_share(make):
    grown = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            grown.append(len(model.levels))

    make(init="noise", max_steps=20, growth_share=0.4, callbacks=[Watch()]).train()
    assert grown == [1, 1, 2, 2, 3, 3, 4, 4] + [5] * 12  # 1, 2, 4, 8, 16 pixels: four times in eight steps


def test_growth_every_so_many_steps_is_the_papers(make):
    """The first level after one step more, whatever the side and the length of the run."""
    grown = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            grown.append(len(model.levels))

    make(init="noise", max_steps=15, growth_steps=3, callbacks=[Watch()]).train()
    assert grown == [1] * 4 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 2


def test_checkpoints_are_pruned_and_whole(make, tmp_path):
    make(save_total_limit=2, save_steps=2).train()
    assert [path.name for path in all_checkpoints(tmp_path / "out")] == ["checkpoint-10", "checkpoint-12"]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(("signum", "step"), [(signal.SIGUSR1, 5), (signal.SIGUSR1, 8)])
def test_sigusr1_saves_and_goes_on(make, signum, step, tmp_path, caplog):
    distiller = make(callbacks=[Signal(step, signum)], save_total_limit=None)
    distiller.train()
    assert distiller.state.global_step == 12
    assert f"checkpoint-{step}" in [path.name for path in all_checkpoints(tmp_path / "out")]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_sigterm_saves_and_dies_of_it(tmp_path):
    """In a process of its own: the default action of SIGTERM is to end it."""
    finished = run_script("--sigterm_at", "4", folder=tmp_path / "out", check=False)
    assert finished.returncode == -signal.SIGTERM
    assert all_checkpoints(tmp_path / "out")[-1].name == "checkpoint-4"


def test_nan_stops_with_its_step_and_the_last_good_checkpoint_stays(make, tmp_path):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 6:
                model.levels[0].data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match=r"in step 6. Last good checkpoint: .*checkpoint-4. Try a smaller"):
        make(callbacks=[Poison()]).train()
    assert [path.name for path in all_checkpoints(tmp_path / "out")] == ["checkpoint-4"]


def test_nan_after_the_last_log_is_found(make):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            model.levels[0].data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="in step 1"):
        make(callbacks=[Poison()], save_strategy="no", logging_steps=100).train()


def test_images_that_are_not_finite_are_not_saved(make, tmp_path):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 8:
                model.levels[0].data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="not finite any more at step 8"):
        make(callbacks=[Poison()]).train()
    assert [path.name for path in all_checkpoints(tmp_path / "out")] == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate=0.02 there, 0.5 now"),
        ({"images_per_class": 2}, "images_per_class=1 there, 2 now"),
        ({"bounded_crops": False}, "bounded_crops=True there, False now"),
        ({"model": FrozenBackbone(make_vit(1), Preprocessing(SIDE))}, "backbone="),
    ],
)
def test_other_settings_do_not_go_on(make, change, message):
    make(max_steps=4).train()
    with pytest.raises(ValueError, match=f"made with other settings: .*{message}.*give the run there up"):
        make(max_steps=4, **change).train(resume_from_checkpoint="auto")


def write_as_before(checkpoint, *settings):
    """Make a checkpoint what an earlier version wrote: without these settings, and without checksums."""
    (checkpoint / "checksums.json").unlink()
    run = json.loads((checkpoint / "run.json").read_text())
    del run["has_checksums"]
    run["identity"] = {name: value for name, value in run["identity"].items() if name not in settings}
    (checkpoint / "run.json").write_text(json.dumps(run))


def test_a_checkpoint_from_before_there_was_a_setting_goes_on_at_its_default(make, tmp_path):
    make(max_steps=4).train()
    write_as_before(tmp_path / "out" / "checkpoint-4", "bounded_crops")
    make(max_steps=4).train(resume_from_checkpoint="auto")
    with pytest.raises(ValueError, match="bounded_crops=True there, False now"):
        make(max_steps=4, bounded_crops=False).train(resume_from_checkpoint="auto")


def test_a_checkpoint_from_before_layers_goes_on_without_them(make, tmp_path):
    before = {"layers": 0, "view_sizes": [], "init_weight": 0.0, "lr_scheduler_type": "constant", "channels": 3}
    make(max_steps=4, **before).train()
    write_as_before(tmp_path / "out" / "checkpoint-4", *before)
    make(max_steps=4, **before).train(resume_from_checkpoint="auto")
    with pytest.raises(ValueError, match="init_weight=0.0 there, 0.5 now; layers=0 there, 3 now"):
        make(max_steps=4).train(resume_from_checkpoint="auto")


def test_what_does_not_decide_the_result_may_change(make):
    make(max_steps=4).train()
    make(max_steps=4, logging_steps=1, chunk_size=1).train(resume_from_checkpoint="auto")


def test_other_labels_do_not_go_on(make, splits):
    """The same images and class names, so only the labels tell."""
    make(max_steps=4).train()
    other = make(max_steps=4)
    flipped = dataclasses.replace(other.train_images, labels=other.train_images.labels.flip(0))
    other.start = dataclasses.replace(other.start, images=flipped)
    with pytest.raises(ValueError, match="labels="):
        other.train(resume_from_checkpoint=True)


def test_checkpoints_of_another_run_are_not_mixed_with(make, tmp_path):
    make().train()
    with pytest.raises(ValueError, match="found checkpoint-12: resume_from_checkpoint=True goes on there"):
        make(max_steps=4).train()
    assert len(all_checkpoints(tmp_path / "out")) == 2
    resumed = make()
    resumed.train(resume_from_checkpoint=tmp_path / "out" / "checkpoint-8")  # the later one is written anew
    assert [path.name for path in all_checkpoints(tmp_path / "out")] == ["checkpoint-8", "checkpoint-12"]


def test_training_again_starts_again(make):
    distiller = make(save_strategy="no")
    distiller.train()
    first = levels_of(distiller)
    distiller.train()
    assert_same_bits(levels_of(distiller), first)


def test_another_configuration_does_not_disturb(make):
    """Transformers resets Accelerate's state for every TrainingArguments."""
    distiller = make(max_steps=2)
    LGMConfig(seed=7)
    assert distiller.train().global_step == 2


def test_auto_without_a_checkpoint_starts(make):
    assert make(max_steps=2).train(resume_from_checkpoint="auto").global_step == 2


def test_a_folder_that_is_no_checkpoint(make, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no checkpoint; expected synthetic.safetensors"):
        make().train(resume_from_checkpoint=str(tmp_path))


def test_evaluation_does_not_change_the_run(make):
    plain, evaluated = make("plain"), make("evaluated", eval_strategy="steps", eval_steps=4, eval_seeds=1)
    plain.train(), evaluated.train()
    assert_same_bits(levels_of(plain), levels_of(evaluated))
    assert [log["step"] for log in evaluated.state.log_history if "eval_accuracy" in log] == [4, 8, 12]


def test_the_folder_is_what_load_dataset_sees(make, splits):
    distiller = make(images_per_class=2)
    distiller.train()
    folder = distiller.save_model()
    loaded = load_dataset(str(folder))["train"]  # with checkpoints and the time-lapse beside the data
    assert loaded.features["label"].names == splits["train"].features["label"].names
    assert loaded["label"][:] == [0, 0, 1, 1, 2, 2]
    saved = DistilledSet.from_pretrained(folder)
    assert torch.equal(saved.pixels(), distiller.distilled_set().pixels())
    assert saved.pixels().sub(distiller.images().detach()).abs().max() < 0.51 / 255
    assert saved.config["settings"] == {**distiller.args.own_settings(), "channels": 3}
    assert saved.config["run"]["steps"] == 12
    assert (folder / "timelapse.gif").stat().st_size > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda data, model: LGMDistiller(model), "needs a train_dataset"),
        (lambda data, model: LGMDistiller(model, LGMConfig(eval_strategy="steps"), data), "needs an eval_dataset"),
        (lambda data, model: LGMDistiller(model, None, data, make_dataset(classes=2)), "missing class 2"),
        (lambda data, model: LGMDistiller(model, None, make_dataset(classes=1)), "at least two classes, found 1"),
        (lambda data, model: LGMDistiller(model, None, data).evaluate(), "needs an eval_dataset"),
        (
            lambda data, model: LGMDistiller(model, LGMConfig(images_per_class=9), data),
            "images_per_class=9 is more than the 8 real images of class 'class 0'",
        ),
    ],
)
def test_what_can_not_be_distilled(backbone, splits, build, message):
    with pytest.raises(ValueError, match=message):
        build(splits["train"], backbone)


def command(*flags, folder, processes=1):
    """Distil as a user's script does."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    )
    script = ROOT / "tests" / "run_distiller.py"
    return [sys.executable, *launcher, str(script), "--output_dir", str(folder), *flags]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run_script(*flags, check=True, **where):
    """In fresh processes of one thread each; one alone in this process, which has one thread too and starts faster."""
    if check and where.get("processes", 1) == 1:
        return run_distiller.main(["--output_dir", str(where["folder"]), *flags])
    typed = command(*flags, **where)
    return subprocess.run(typed, env=ENVIRONMENT, check=check, capture_output=True, text=True, timeout=300)


def final_tensors(folder):
    return Checkpoint.load(all_checkpoints(folder)[-1]).tensors


def gradients(folder):
    """Of the last step, of all images, of each level."""
    parts = [load_file(file) for file in sorted(folder.glob("gradients-*.safetensors"))]
    return [torch.cat([part[level] for part in parts]) for level in sorted(parts[0], key=int)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one chunk."""
    folder = tmp_path_factory.mktemp("alone")
    run_script(folder=folder)
    return folder


@pytest.mark.parametrize(
    ("processes", "flags"),
    [(1, ["--chunk_size", "1"]), (2, []), (3, []), (2, ["--chunk_size", "1"]), (2, ["--streaming"])],
)
def test_processes_and_chunks_agree(alone, tmp_path, processes, flags):
    """Also where each of them reads a stream and encodes a part of it."""
    run_script(*flags, folder=tmp_path / "many", processes=processes)
    one, many = final_tensors(alone), final_tensors(tmp_path / "many")
    assert one.keys() == many.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(many[name], tensor, rtol=0, atol=1e-12)
    for all_at_once, shared in zip(gradients(alone), gradients(tmp_path / "many"), strict=True):
        assert all_at_once.dtype == torch.float64 and all_at_once.abs().max() > 1e-6
        torch.testing.assert_close(shared, all_at_once, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--objective", "ridge"], marks=pytest.mark.slow),
        ["--images_per_class", "2"],  # clusters
        ["--images_per_class", "3", "--real_images_per_class", "1", "--init", "centroid"],  # next ones of herding
        ["--objective", "ridge", "--images_per_class", "2", "--label_learning_rate", "0.1"],
        pytest.param(["--label_learning_rate", "0.1"], marks=pytest.mark.slow),
        ["--vae", "vae"],
    ],
    ids=" ".join,
)
def test_processes_agree_on_whatever_is_learned(tmp_path, flags):
    """Ridge, clusters, soft labels and latents: two processes of three classes, so that their shares differ."""
    if "--vae" in flags:
        torch.manual_seed(0)
        AutoencoderTiny(num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1)).save_pretrained(
            tmp_path / "vae"
        )
        flags = ["--vae", str(tmp_path / "vae")]
    for name, processes in (("one", 1), ("two", 2)):
        run_script(*flags, "--classes", "3", folder=tmp_path / name, processes=processes)
    one, two = final_tensors(tmp_path / "one"), final_tensors(tmp_path / "two")
    assert one.keys() == two.keys()
    tolerance = 1e-4 if "--vae" in flags else 1e-10  # an autoencoder draws in float32, of other rows at a time
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=tolerance)


def test_more_processes_than_images_and_another_number_resumes(tmp_path):
    """Three processes for two images; then one goes on from where the three were. From real images, too."""
    flags = ["--classes", "2", "--init", "centroid"]
    run_script(*flags, folder=tmp_path / "one")
    run_script(*flags, folder=tmp_path / "three", processes=3)
    checkpoint = str(tmp_path / "three" / "checkpoint-3")
    run_script(*flags, "--resume_from_checkpoint", checkpoint, folder=tmp_path / "three")
    one, resumed = final_tensors(tmp_path / "one"), final_tensors(tmp_path / "three")
    for name, tensor in one.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("step", random.sample(range(1, 36), 10))
def test_sigkill_at_a_random_step(tmp_path, step):
    """Killed from outside while it runs, as the kernel does it; resumed, the last checkpoint has the same bytes."""
    flags, folder = ["--max_steps", "40"], tmp_path / "killed"
    run_script(*flags, folder=tmp_path / "whole")
    process = subprocess.Popen(command(*flags, folder=folder), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    while not (folder / "runs" / "frames" / f"{step:06d}.png").exists():
        assert process.poll() is None
    time.sleep(random.uniform(0, 0.03))
    process.kill()
    process.wait()
    killed_after = all_checkpoints(folder)[-1].name if all_checkpoints(folder) else "nothing"
    assert killed_after != "checkpoint-40"
    run_script(*flags, "--resume_from_checkpoint", "auto", folder=folder)
    name = "checkpoint-40/synthetic.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), killed_after


@pytest.mark.slow
def test_ten_thousand_classes(backbone, tmp_path):
    args = LGMConfig(str(tmp_path), max_steps=1, views_per_step=1, disable_tqdm=True, eval_seeds=1)
    dataset = make_dataset(per_class=1, classes=10_000, side=4)
    distiller = LGMDistiller(backbone, args, dataset, dataset)
    distiller.train()
    metrics = distiller.evaluate(ProbeProtocol(epochs=2, views=1, seeds=1))
    assert len(distiller.distilled_set().class_names) == 10_000
    assert 0 <= metrics["eval_accuracy"] <= metrics["eval_accuracy_top5"] < 5
