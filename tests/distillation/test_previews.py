"""What is shown while a run goes on: pictures, the time-lapse, and what trackers get."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from hf_lgm import LGMConfig, LGMDistiller, trackers
from hf_lgm.data.images import to_images
from hf_lgm.distillation.output_folder import check_is_ours, frame_folder, frames, remove_earlier_run
from hf_lgm.publishing import timelapse
from hf_lgm.publishing.figures import PREVIEW_PIXELS, grid
from hf_lgm.publishing.timelapse import save_timelapse


class StopAt(TrainerCallback):
    """Stops a run, or dies in it, at a step."""

    def __init__(self, step, dies=False):
        self.step, self.dies = step, dies

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.dies:
                raise KeyboardInterrupt
            control.should_training_stop = True


@pytest.fixture
def make(backbone, splits, tmp_path):
    def make(*callbacks, **settings):
        settings = {"max_steps": 6, "preview_steps": 2, "views_per_step": 1, "disable_tqdm": True, **settings}
        return LGMDistiller(
            backbone, LGMConfig(str(tmp_path / "run"), **settings), splits["train"], callbacks=callbacks
        )

    return make


def frame_steps(folder):
    return [int(path.stem) for path in frames(folder)]


def test_the_preview_is_the_newest_frame_and_no_frame_is_left(make, tmp_path):
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            folder = tmp_path / "run"
            if state.global_step in (2, 4, 6):
                expected = grid(to_images(model().detach()), PREVIEW_PIXELS)
                shown = Image.open(folder / "preview.png")
                assert np.array_equal(np.asarray(shown), np.asarray(expected))
            seen.append(frame_steps(folder))

    make(Look()).train()
    assert seen == [[], [2], [2], [2, 4], [2, 4], [2, 4, 6]]
    assert not (tmp_path / "run" / "runs").exists()
    with Image.open(tmp_path / "run" / "timelapse.gif") as film:
        assert (film.n_frames, film.info["comment"]) == (3, b"hf_lgm")


@pytest.mark.parametrize(("preview_steps", "expected"), [(0.5, [3, 6]), (0.3, [2, 4, 6]), (4, [4, 6]), (50, [6])])
def test_steps_between_previews_are_a_number_or_a_share(make, tmp_path, preview_steps, expected):
    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen[:] = frame_steps(tmp_path / "run")

    make(Look(), preview_steps=preview_steps).train()
    assert seen == expected


def test_a_killed_run_has_its_frames_when_it_goes_on(make, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(StopAt(5, dies=True), save_steps=3, preview_steps=1).train()
    assert frame_steps(tmp_path / "run") == [1, 2, 3, 4, 5]
    resumed = make(save_steps=3)  # another interval: what came after the checkpoint is shown anew
    resumed.train(resume_from_checkpoint="auto")
    with Image.open(tmp_path / "run" / "timelapse.gif") as film:
        assert film.n_frames == 3 + len([4, 6])


def test_a_run_that_was_stopped_keeps_its_frames(make, tmp_path):
    make(StopAt(4)).train()
    assert frame_steps(tmp_path / "run") == [2, 4]
    assert (tmp_path / "run" / "timelapse.gif").exists()


def test_pictures_of_a_run_that_was_not_saved_are_ours(make, tmp_path):
    make(save_strategy="no").train()
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"preview.png", "timelapse.gif"}
    check_is_ours(tmp_path / "run")
    remove_earlier_run(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_somebody_elses_gif_is_not_ours(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "timelapse.gif")
    with pytest.raises(FileExistsError, match="timelapse.gif"):
        check_is_ours(tmp_path)


def test_somebody_elses_file_among_the_frames_stays(make, tmp_path):
    frame_folder(tmp_path / "run").mkdir(parents=True)
    (frame_folder(tmp_path / "run") / "notes.txt").write_text("mine")
    make().train()
    assert [path.name for path in frame_folder(tmp_path / "run").iterdir()] == ["notes.txt"]


def save_frames(folder, count, size):
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:06d}.png")
        Image.new("RGB", size, (255 * number // count, 80, 40)).save(paths[-1])
    return paths


def test_a_time_lapse_has_the_colours_of_its_frames_and_holds_the_last(tmp_path):
    save_timelapse(save_frames(tmp_path, 4, (40, 20)), tmp_path)
    with Image.open(tmp_path / "timelapse.gif") as film:
        shown, durations = [], []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(film.convert("RGB").getpixel((5, 5)))
            durations.append(film.info["duration"])
    assert durations == [100, 100, 100, 2000]
    expected = np.array([(255 * number // 4, 80, 40) for number in range(4)])
    assert np.abs(np.array(shown) - expected).max() <= 8  # an octree's colours


def test_large_frames_are_shrunk_to_even_sides(tmp_path):
    save_timelapse(save_frames(tmp_path, 2, (805, 797)), tmp_path)
    with Image.open(tmp_path / "timelapse.gif") as film:
        assert film.width * film.height <= 1.01 * timelapse.MAX_PIXELS
        assert film.width % 2 == film.height % 2 == 0
        assert film.width / film.height == pytest.approx(805 / 797, abs=0.005)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio's reader leaves pipes open
def test_a_video_beside_it_where_its_extra_is(tmp_path):
    imageio = pytest.importorskip("imageio.v2", reason="the video extra is not installed")
    pytest.importorskip("imageio_ffmpeg", reason="the video extra is not installed")
    assert [path.name for path in save_timelapse(save_frames(tmp_path, 4, (41, 31)), tmp_path)] == [
        "timelapse.gif",
        "timelapse.mp4",
    ]
    with imageio.get_reader(tmp_path / "timelapse.mp4") as film:
        shown = [frame for frame in film]
    assert shown[0].shape == (32, 40, 3)  # even sides
    assert len(shown) == 3 + 20  # the last one is held
    assert np.abs(shown[-1].mean(axis=(0, 1)) - (191, 80, 40)).max() < 12


def test_no_video_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(timelapse, "find_spec", lambda name: None)
    assert [path.name for path in save_timelapse(save_frames(tmp_path, 2, (16, 16)), tmp_path)] == ["timelapse.gif"]


def test_tensorboard_gets_curves_and_images(make, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    distiller = make(report_to="tensorboard", logging_steps=3)
    distiller.train()
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [3, 6]
    images = events.Images("images")
    assert [event.step for event in images] == [2, 4, 6]
    (tmp_path / "last.png").write_bytes(images[-1].encoded_image_string)
    expected = grid(to_images(distiller.images().detach()), PREVIEW_PIXELS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "last.png")), np.asarray(expected))


class Recorder(ModuleType):
    """What Transformers' callbacks for W&B and Trackio use of these packages; keeps what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.told, self.begun, self.ended = [], [], 0
        self.run, self.config, self.__version__ = None, {}, "1.0"
        self.context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))

    def init(self, **given):
        self.begun.append(given)
        self.run = SimpleNamespace(_label=lambda **label: None, summary={})
        self.config = Config()

    def log(self, values):
        self.told.append(values)

    def finish(self):
        self.ended += 1


class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_the_curves_by_their_own_callbacks(make, name, monkeypatch):
    """Of their packages a stand-in, which shows what we hand on, and not what they make of it."""
    package = Recorder(name)
    monkeypatch.setitem(sys.modules, name, package)
    errors = SimpleNamespace(ConfigError=KeyError)
    for part in ("sdk", "sdk.lib", "sdk.lib.config_util"):
        monkeypatch.setitem(sys.modules, f"{name}.{part}", errors)
    monkeypatch.setattr(integration_utils, f"is_{name}_available", lambda: True)
    monkeypatch.setattr(trackers, "find_spec", lambda module: True)
    distiller = make(report_to=name, logging_steps=2, run_name="three classes", project="colours")
    distiller.train()
    [begun] = package.begun
    assert begun["name"] == "three classes"
    assert package.config["learning_rate"] == distiller.args.learning_rate
    curve = {values["train/global_step"]: values["train/loss"] for values in package.told}
    assert curve == {log["step"]: log["loss"] for log in distiller.state.log_history}
    assert list(curve) == [2, 4, 6]
