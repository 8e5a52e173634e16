"""Features on disk, in shards that survive a killed process and tell when they are damaged."""

import copy
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import PIL
import torch
import transformers
from huggingface_hub import cached_assets_path
from safetensors import SafetensorError, safe_open

from ..backbones.backbone import FrozenBackbone
from ..whole_files import remove_abandoned, replacing, save_tensors, temporary_name

logger = logging.getLogger(__name__)

# An interrupted extraction loses at most this many images.
SHARD_ROWS = 1024

# Bytes of features that memory holds; more are mapped from a file.
_IN_MEMORY = 2**30


class FeatureCache:
    """The features of one split through one backbone.

    Args:
        backbone ([`FrozenBackbone`]): The backbone.
        images_fingerprint (`str`): What identifies the images and their order.
        cache_dir (`str` or `Path`, *optional*): Another place than the Hugging Face assets cache.
        shard_rows (`int`, *optional*, defaults to 1024): Images per shard.
        with_layers (`bool`, *optional*, defaults to `False`): Whether the backbone's layers belong to them. These lie
            in files of their own, so that the features are found with and without.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        images_fingerprint: str,
        cache_dir: str | Path | None = None,
        shard_rows: int = SHARD_ROWS,
        with_layers: bool = False,
    ) -> None:
        versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Pillow {PIL.__version__}"
        key = {
            "backbone": backbone.fingerprint,
            "images": images_fingerprint,
            "device": backbone.mean.device.type,
            "dtype": str(backbone.dtype),
            "versions": versions,
            **({"shard_rows": shard_rows} if shard_rows != SHARD_ROWS else {}),
        }
        root = Path(cache_dir) if cache_dir else assets_folder("features")
        self.dim, self.dtype, self.shard_rows = backbone.dim, backbone.dtype, shard_rows
        self._set_layers(backbone if with_layers else None)
        self.folder = root / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)
        if not (self.folder / "key.json").exists():
            with replacing(self.folder / "key.json") as temporary:
                temporary.write_text(json.dumps(key, indent=2))

    def with_layers_of(self, backbone: FrozenBackbone) -> "FeatureCache":
        """The same with the layers of the backbone."""
        cache = copy.copy(self)
        cache._set_layers(backbone)
        return cache

    def _set_layers(self, backbone: FrozenBackbone | None) -> None:
        self.layers = backbone.layers if backbone else ()
        self.widths = [self.dim, *([sum(backbone.layer_dims)] if backbone and backbone.layers else [])]

    def empty(self, total: int) -> torch.Tensor:
        """Room for all `total` rows, of shape (total, D); on disk where they are many."""
        width = sum(self.widths)
        if total * width * self.dtype.itemsize < _IN_MEMORY:
            return torch.empty(total, width, dtype=self.dtype)
        name = temporary_name("features")
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=name) as file:  # its name goes, the mapping stays
            if hasattr(os, "posix_fallocate"):  # a disk that is full says so now; later the process would be killed
                os.posix_fallocate(file.fileno(), 0, total * width * self.dtype.itemsize)
            return torch.from_file(file.name, shared=True, size=total * width, dtype=self.dtype).view(total, width)

    def write(self, start: int, z: torch.Tensor) -> None:
        """Keep the shard that begins at row `start`, of features that are numbers; see [`check_finite`]."""
        for path, part in zip(self._paths(start), z.split(self.widths, dim=1), strict=True):
            part = part.contiguous()
            write_tensors(path, {"z": part}, {"sha256": _checksum(part)})

    def read(self, start: int, total: int | None = None) -> torch.Tensor | None:
        """The shard that begins at row `start`, of shape (rows, D); `None` if missing or damaged."""
        parts = []
        for path, width in zip(self._paths(start), self.widths, strict=True):
            if (part := self._read_part(path, width, start, total)) is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _read_part(self, path: Path, width: int, start: int, total: int | None) -> torch.Tensor | None:
        """What one file holds of a shard."""
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                z, metadata = file.get_tensor("z"), file.metadata() or {}
        except (SafetensorError, OSError) as error:
            logger.warning("Computing the damaged feature shard %s again (%s)", path, error)
            return None
        is_whole = z.dtype == self.dtype and (total is None or len(z) == min(self.shard_rows, total - start))
        if not is_whole or z.shape[1:] != (width,) or metadata.get("sha256") != _checksum(z):
            logger.warning("Computing the feature shard %s again: it is not as it was written", path)
            return None
        return z

    def read_all(self, total: int) -> torch.Tensor | None:
        """Features of shape (total, D), or `None` if a shard is missing or damaged."""
        shards = []
        for start in range(0, total, self.shard_rows):
            if (shard := self.read(start, total)) is None:
                return None
            shards.append(shard)
        return torch.cat(shards) if shards else torch.empty(0, sum(self.widths))

    def digest(self, total: int) -> str | None:
        """A digest of `total` rows of features, or `None` if a shard is missing or damaged."""
        shards = hashlib.sha256()
        for start in range(0, total, self.shard_rows):
            if (shard := self.read(start, total)) is None:
                return None
            shards.update(_checksum(shard).encode())
        return shards.hexdigest()

    def _paths(self, start: int) -> list[Path]:
        """Where the features of a shard are, and where its layers."""
        name = f"{start // self.shard_rows:05d}.safetensors"
        layers = "-".join(map(str, self.layers))
        return [self.folder / f"shard-{name}", *([self.folder / f"layers-{layers}-{name}"] if layers else [])]


def check_finite(z: torch.Tensor, rows: Sequence[int] | torch.Tensor, backbone: FrozenBackbone) -> None:
    """Refuse features that are no numbers, before anything is made of them.

    Args:
        z (`torch.Tensor`): Shape (N, D).
        rows (`Sequence[int]`): Length N, the rows of their images in the dataset.
        backbone ([`FrozenBackbone`]): Where they are from.

    Raises:
        FloatingPointError: If one is not finite; the message names the image.
    """
    is_finite = z.isfinite().all(dim=1)
    if is_finite.all():
        return
    first, count = int(rows[int((~is_finite).nonzero()[0])]), int((~is_finite).sum())
    others = f" (and of {count - 1} of the next {len(z) - 1})" if count > 1 else ""
    advice = "another model" if backbone.dtype == torch.float32 else "float32 weights (bf16=False), or another model"
    raise FloatingPointError(
        f"The features of the image in row {first}{others} through {backbone.name} are not finite in "
        f"{backbone.dtype}: look at that image, or use {advice}."
    )


def assets_folder(kind: str) -> Path:
    """A folder of ours under the Hugging Face assets cache."""
    return cached_assets_path("hf_lgm", kind)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write under another name first: a file that is there is whole."""
    with replacing(path) as temporary:
        save_tensors(tensors, temporary, metadata)


def _checksum(z: torch.Tensor) -> str:
    return hashlib.sha256(z.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
