"""What can be removed from a run without changing its result: progress, previews, the time-lapse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DefaultFlowCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import CallbackHandler

from ..data.images import to_images
from ..progress import progress
from ..publishing.figures import MAX_FRAME_IMAGES, PREVIEW_PIXELS, grid, save_timelapse
from ..publishing.files import TIMELAPSE_FILE
from .output_folder import frame_folder, frames, remove_frames

_FRAMES = 40


def callback_handler(args: TrainingArguments, callbacks: Sequence[TrainerCallback]) -> CallbackHandler:
    """The callbacks of a run: progress bar, time-lapse, the trackers that are asked for, and the given ones."""
    from transformers.integrations import get_reporting_integration_callbacks  # here, since it is slow to load

    try:
        trackers = [callback() for callback in get_reporting_integration_callbacks(args.report_to)]
    except RuntimeError as error:  # half installed, or too old: Transformers says what to install
        raise ImportError(f"report_to: {error}") from error
    shown = [] if args.disable_tqdm else [LossBar()]
    everybody = [DefaultFlowCallback(), *shown, Timelapse(), *trackers, *callbacks]
    return CallbackHandler(everybody, None, None, None, None)


class LossBar(ProgressCallback):
    """A progress bar with the loss, steps per second and the time left; a line a minute without a terminal."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin at the step that the run goes on from."""
        if state.is_world_process_zero:
            steps = state.max_steps
            self.training_bar = progress(total=steps, initial=state.global_step, desc="distilling", unit="step")
        self.current_step = state.global_step

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the loss beside the bar instead of a line for each log."""
        if self.training_bar is not None and logs and "loss" in logs:
            shown = {"loss": f"{logs['loss']:.4f}", "levels": logs["levels"]}
            self.training_bar.set_postfix(shown, refresh=False)
        elif logs and any(key.startswith("eval_") for key in logs):
            super().on_log(args, state, control, logs, **kwargs)


class Timelapse(TrainerCallback):
    """Keeps frames of the images on the way and joins them to `timelapse.gif` at the end.

    The frames lie in files, so that a resumed run has all of them. With several processes they show the first
    one's images.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the frames of a run that came to nothing."""
        if state.is_world_process_zero and state.global_step == 0:
            remove_frames(args.output_dir)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep one frame of `model`, the synthetic images."""
        is_due = state.global_step % max(1, state.max_steps // _FRAMES) == 0 or state.global_step == state.max_steps
        if not (state.is_world_process_zero and is_due):
            return
        folder = frame_folder(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            images = to_images(kwargs["model"]()[:MAX_FRAME_IMAGES])
        grid(images, PREVIEW_PIXELS).save(folder / f"{state.global_step:06d}.png")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the animation."""
        found = frames(args.output_dir)
        if state.is_world_process_zero and found:
            save_timelapse(found, Path(args.output_dir or "") / TIMELAPSE_FILE)
