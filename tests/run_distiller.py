"""A small distillation in float64, for tests that need processes of their own."""

import os
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path

from conftest import SIDE, make_dataset, make_vit
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing, StreamEncoder


class Terminate(TrainerCallback):
    """Sends this process SIGTERM after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class KeepGradients(TrainerCallback):
    """Leaves each process's gradients of the last step; those of the finest level are the pixels' own."""

    def __init__(self, folder):
        self.file = Path(folder) / f"gradients-{os.environ.get('RANK', '0')}.safetensors"

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step == args.max_steps - 1:
            save_file({str(level): tensor.grad for level, tensor in enumerate(model.levels)}, self.file)


def main(argv):
    """One run, in this process."""
    parser = ArgumentParser()
    parser.add_argument("--output_dir")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--max_steps", type=int, default=6)
    parser.add_argument("--chunk_size", type=int)
    parser.add_argument("--init", default="noise")
    parser.add_argument("--resume_from_checkpoint")
    parser.add_argument("--sigterm_at", type=int)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--images_per_class", type=int, default=1)
    parser.add_argument("--real_images_per_class", type=int, default=0)
    parser.add_argument("--objective", default="lgm")
    parser.add_argument("--label_learning_rate", type=float, default=0.0)
    parser.add_argument("--vae")
    flags = parser.parse_args(argv)

    args = LGMConfig(
        flags.output_dir,
        init=flags.init,
        images_per_class=flags.images_per_class,
        real_images_per_class=flags.real_images_per_class,
        objective=flags.objective,
        label_learning_rate=flags.label_learning_rate,
        parameterization="latent" if flags.vae else "pyramid",
        vae=flags.vae,
        max_steps=flags.max_steps,
        save_steps=3,
        save_total_limit=9,
        views_per_step=2,
        chunk_size=flags.chunk_size,
        disable_tqdm=True,
    )
    backbone = FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.0)).double()
    dataset = make_dataset(classes=flags.classes)
    if flags.streaming:
        dataset = StreamEncoder([backbone.with_layers(LGMConfig.layers)], shard_rows=10).encode(
            dataset.to_iterable_dataset()
        )
    callbacks = [Terminate(flags.sigterm_at), KeepGradients(flags.output_dir)]
    distiller = LGMDistiller(backbone, args, dataset, callbacks=callbacks)
    distiller.train(flags.resume_from_checkpoint)


if __name__ == "__main__":
    main(sys.argv[1:])
