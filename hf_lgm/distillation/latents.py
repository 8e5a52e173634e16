"""Synthetic images that are decodings of learned latents: what a frozen autoencoder can draw (arXiv 2305.01649)."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, AutoModel, DiffusionPipeline
from torch.utils.checkpoint import checkpoint

from ..hub import existing_path_or_id, first_line, model_error, must_use_cache
from .synthetic import SyntheticImages, resized

# Images that are decoded at a time, so that no more than their graphs are held; all are decoded twice in each step.
_DECODED = 8


def load_autoencoder(name_or_path: str) -> Any:
    """A frozen autoencoder, from a repository or folder of its own or the `vae` of a diffusion pipeline's.

    Args:
        name_or_path (`str`): Such as `stabilityai/sd-vae-ft-mse` or `madebyollin/taesd`, or a folder.

    Raises:
        FileNotFoundError: If a path is not there.
        HubError: If the repository can't be had.
        ValueError: If it is something else.
    """
    name = existing_path_or_id(name_or_path, "vae")
    offline = must_use_cache(name, "model", "vae")
    try:
        model = AutoModel.from_pretrained(name, subfolder=_subfolder(name, offline), local_files_only=offline)
    except ValueError as error:
        raise ValueError(f"vae: '{name}' can't be loaded ({first_line(error)}). {_EXPECTED}") from error
    except OSError as error:
        raise model_error(error, name) from error
    if not isinstance(model, (AutoencoderKL, AutoencoderTiny)):
        raise ValueError(f"vae: '{name}' is a {type(model).__name__}. {_EXPECTED}")
    frozen: Any = model
    frozen.__dict__.pop("_diffusers_load_id", None)  # a path, which would count in the fingerprint
    return frozen.requires_grad_(False).eval()


def own_config(autoencoder: Any) -> dict[str, Any]:
    """Its configuration without what diffusers adds of its own, such as the path that it came from."""
    return {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}


_EXPECTED = "Expected an AutoencoderKL or AutoencoderTiny of diffusers, such as madebyollin/taesd."


def _subfolder(name: str, offline: bool) -> str | None:
    """`vae` in a pipeline, which has a `model_index.json`."""
    try:
        DiffusionPipeline.load_config(name, local_files_only=offline)
        return "vae"
    except OSError:
        return None


class LatentImages(SyntheticImages):
    """A slice of the synthetic images of one run, as latents of an autoencoder.

    Args:
        image_ids (`Sequence[int]`): Length n, the images' numbers in the whole set.
        size (`int`): Side of the images in pixels; what the autoencoder draws is resized to it.
        seed (`int`): The seed of the run.
        autoencoder (`AutoencoderKL` or `AutoencoderTiny`): Frozen.
    """

    def __init__(self, image_ids: Sequence[int], size: int, seed: int, autoencoder: Any) -> None:
        channels = autoencoder.config.latent_channels
        with torch.no_grad():
            tried = autoencoder.decode(torch.zeros(1, channels, 2, 2).to(next(autoencoder.parameters()))).sample
        factor = tried.shape[-1] // 2
        super().__init__(image_ids, size, seed, sides=[-(-size // factor)], channels=channels)
        self.drawn_size = factor * self.sides[0]
        self.autoencoder = autoencoder

    @torch.no_grad()
    def start_from(self, images: torch.Tensor) -> None:
        """Start from the latents of images of shape (n, 3, side, side) with values in [0, 1]."""
        self.mix_with(images, 1.0)

    @torch.no_grad()
    def mix_with(self, images: torch.Tensor, weight: float) -> None:
        """Mix latents with those of images: drawing and encoding them again would wear them out."""
        latents = [self._encode(few.to(self.levels[0])) for few in images.split(_DECODED) if len(few)]
        if latents:
            self.levels[0].lerp_(torch.cat(latents), weight)

    def forward(self) -> torch.Tensor:
        """The images, of shape (n, 3, size, size) with values in [0, 1]."""
        latents = self.levels[0]
        if len(latents) == 0:  # more processes than images
            return latents.new_zeros(0, 3, self.size, self.size) * latents.sum()
        drawn = [
            checkpoint(self._decode, few, use_reentrant=False, preserve_rng_state=False)
            for few in latents.split(_DECODED)
        ]
        return torch.cat(drawn)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        scale, shift = self._statistics()
        drawn = self.autoencoder.decode(latents / scale + shift).sample / 2 + 0.5
        return resized(drawn, self.size).clamp(0, 1)

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        scale, shift = self._statistics()
        output = self.autoencoder.encode(resized(images, self.drawn_size) * 2 - 1)
        found = output.latents if hasattr(output, "latents") else output.latent_dist.mode()
        return (found - shift) * scale

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What latents are multiplied by and moved by, so that they are about standard normal: one or per channel."""
        config, like = self.autoencoder.config, self.levels[0]
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        shift = (getattr(config, "shift_factor", None) or 0.0) if mean is None else mean
        scale = config.scaling_factor / like.new_tensor(1.0 if std is None else std)
        return scale.view(-1, 1, 1), like.new_tensor(shift).view(-1, 1, 1)
