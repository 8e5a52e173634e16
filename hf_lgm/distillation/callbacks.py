"""What can be removed from a run without changing its result: progress, previews, the time-lapse."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from ..publishing.figures import MAX_FRAME_IMAGES, PREVIEW_PIXELS, grid
from ..publishing.files import PREVIEW_FILE, replace_file
from ..publishing.timelapse import save_timelapse
from .output_folder import frame_folder, frames, remove_frames


def callback_handler(args: TrainingArguments, callbacks: Sequence[TrainerCallback]) -> CallbackHandler:
    """The callbacks of a run: progress bar, previews, the trackers that are asked for, and the given ones."""
    from transformers.integrations import get_reporting_integration_callbacks  # here, since it is slow to load

    try:
        trackers = [callback() for callback in get_reporting_integration_callbacks(args.report_to)]
    except RuntimeError as error:  # half installed, or too old: Transformers says what to install
        raise ImportError(f"report_to: {error}") from error
    shown = [] if args.disable_tqdm else [LossBar()]
    everybody = [DefaultFlowCallback(), *shown, Previews([*trackers, *callbacks]), *trackers, *callbacks]
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


class Previews(TrainerCallback):
    """Shows the images on the way: in `preview.png`, to TensorBoard, and as a time-lapse at the end.

    The frames of the time-lapse lie in files until then, so that a resumed run has all of them. Of a run that is made
    longer after its end, the time-lapse begins there. With several processes all show the first one's images.

    Args:
        trackers (`Sequence[TrainerCallback]`): Those that have a writer of TensorBoard get the images too.
    """

    def __init__(self, trackers: Sequence[TrainerCallback]) -> None:
        self.trackers = trackers

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the frames of a run that came to nothing, or was killed later than this one goes on."""
        if state.is_world_process_zero:
            remove_frames(args.output_dir, after=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show `model`, the synthetic images."""
        share: float = getattr(args, "preview_steps")  # noqa: B009  # a field of `LGMConfig`
        every = int(share) if share >= 1 else math.ceil(share * state.max_steps)
        is_due = state.global_step % every == 0 or state.global_step == state.max_steps
        if not (state.is_world_process_zero and is_due):
            return
        with torch.no_grad():
            picture = grid(to_images(kwargs["model"]()[:MAX_FRAME_IMAGES]), PREVIEW_PIXELS)
        folder = frame_folder(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        frame = folder / f"{state.global_step:06d}.png"
        picture.save(frame, compress_level=1)  # they hardly compress, and the run waits
        replace_file(frame, Path(args.output_dir or "") / PREVIEW_FILE)
        for tracker in self.trackers:
            if writer := getattr(tracker, "tb_writer", None):
                writer.add_image("images", np.asarray(picture), state.global_step, dataformats="HWC")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the time-lapse; a run that was stopped on the way keeps its frames."""
        found = frames(args.output_dir)
        if state.is_world_process_zero and found:
            save_timelapse(found, Path(args.output_dir or ""))
            if state.global_step >= state.max_steps:
                remove_frames(args.output_dir)
