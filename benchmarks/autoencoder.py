"""A small autoencoder of the real images themselves, for latents where none can be downloaded.

python benchmarks/autoencoder.py --dataset PATH_OR_ID --image_size 96 --output_dir autoencoder

An AutoencoderTiny of narrow layers, with four pixels for each latent one in each direction, trained on the squared
error alone. What it draws is soft: rows that use it compare parameterizations, not what a large one could do.
"""

import sys
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_lgm.cli.arguments import DataArguments, LoadingArguments
from hf_lgm.cli.inputs import load_data
from hf_lgm.cli.parsing import parse_arguments, prepare_torch, run_command
from hf_lgm.features.extraction import CentreCrops

WIDTHS = (16, 16, 16)


@dataclass
class AutoencoderArguments:
    """How it is trained."""

    image_size: int = field(default=96, metadata={"help": "Side of the images."})
    steps: int = field(default=800, metadata={"help": "Steps of Adam, on 8 images each."})


def main() -> None:
    """Train and save."""
    data_args, args, own = parse_arguments(
        (DataArguments, LoadingArguments, AutoencoderArguments), __doc__, sys.argv[1:]
    )
    prepare_torch()
    torch.manual_seed(args.seed)
    train, _ = load_data(data_args, data_args.dataset, [], args)
    depths = (1,) * len(WIDTHS)
    model = AutoencoderTiny(
        encoder_block_out_channels=WIDTHS,
        decoder_block_out_channels=WIDTHS,
        num_encoder_blocks=depths,
        num_decoder_blocks=depths,
    )
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=own.steps)
    loader = DataLoader(CentreCrops(train, own.image_size, 1.0), batch_size=8, shuffle=True, drop_last=True)
    batches = (batch for _ in range(own.steps) for batch in loader)
    with tqdm(total=own.steps) as bar:
        for _ in range(own.steps):
            pixels = next(batches).float() / 127.5 - 1
            drawn = model.decode(model.encode(pixels).latents).sample
            loss = F.mse_loss(drawn, pixels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(error=f"{loss.item():.4f}")
    model.save_pretrained(args.output_dir)
    print(f"squared error {loss.item():.4f}, saved in {args.output_dir}")


if __name__ == "__main__":
    run_command(main)
