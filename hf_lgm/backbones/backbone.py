"""Any vision model as one function: images in [0, 1] to features, frozen, with a gradient to the pixels."""

import copy
import functools
import json
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from ..data.crops import centre_crops
from ..demo import demo_folder
from ..hub import cached_commit, existing_path_or_id, first_line, model_error, must_use_cache
from ..settings import Pooling
from .architectures import call_model, prepare, takes_text, vision_config
from .fingerprint import model_fingerprint
from .layers import find_layers, pool_layers
from .live import is_timm, without_classifier, without_timm_head
from .loading import load_model
from .pooling import default_pooling, pool
from .preprocessing import Preprocessing
from .weights import check_weights

logger = logging.getLogger(__name__)
_NOT_FINITE = "its weights hold NaN or infinity, or are too large for that precision"
_WRAP_IT = "wrap it in a torch.nn.Module that does, and pass that to FrozenBackbone"


class FrozenBackbone(nn.Module):
    """A pre-trained model from images to features: weights and statistics never move, gradients reach the pixels.

    Args:
        model (`torch.nn.Module`): A vision model of Transformers (of an image classifier the base is taken), a dual
            model with `get_image_features`, or any module that maps images of shape (B, 3, side, side) to features
            (B, D), tokens (B, L, D) or maps (B, D, h, w).
        preprocessing ([`Preprocessing`]): The side it takes, mean and standard deviation.
        pooling (`str`, *optional*): How the output becomes one vector: `"cls"` (first token), `"pooler"`, `"mean"` (of
            all tokens), `"gap"` (of the map) or `"projection"` (the dual models' shared space). Asked of the model
            where not given.
        name (`str`, *optional*): What tables and cards call it; defaults to the class name.
        random_weights (`Collection[str]`, *optional*): Parameters that were not in the checkpoint, so that a pooler
            that was never trained is not used.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        pooling: Pooling | None = None,
        name: str | None = None,
        random_weights: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        if pooling is not None and pooling not in get_args(Pooling):
            raise ValueError(f"feature_pooling must be one of {', '.join(get_args(Pooling))}, found '{pooling}'.")
        self.model = prepare(model := without_classifier(model))
        self._memory_format = torch.contiguous_format
        self.preprocessing = preprocessing
        self.image_size = preprocessing.image_size
        self.name = name or type(model).__name__
        self.revision: str | None = None
        self.source: str | None = None  # id or folder that it was loaded from
        self.layers: tuple[int, ...] = ()  # see `with_layers`
        self.layer_dims: tuple[int, ...] = ()
        device = next((parameter.device for parameter in model.parameters()), None)
        for name_of, values in zip(("mean", "std"), preprocessing.statistics(device), strict=True):
            self.register_buffer(name_of, values, persistent=False)
        output = self._try_two_images()
        self.pooling: Pooling = pooling or default_pooling(model, output, takes_text(model), random_weights)
        if pooling is None and (usual := default_pooling(model, output, takes_text(model), ())) != self.pooling:
            logger.warning("%s lacks weights for '%s': its features are '%s'", self.name, usual, self.pooling)
        try:
            features = pool(output, self.pooling)
        except ValueError as error:
            raise ValueError(f"{self.name} can't be pooled: {error}.") from error
        if not random_weights and not features.isfinite().all():
            raise ValueError(f"{self.name} gives features that are not finite, in {self.dtype}: {_NOT_FINITE}.")
        self.dim = features.shape[1]
        # Convolutions want the channels of a pixel side by side: 1.4 times as fast for MobileNets on a CPU.
        self._memory_format = torch.channels_last if _is_convolutional(self.model) else torch.contiguous_format
        cast(Any, self.model).to(memory_format=self._memory_format)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        image_size: int | None = None,
        resize_ratio: float | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        feature_pooling: Pooling | None = None,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        strip_prefix: str | None = None,
        token: str | None = None,
    ) -> "FrozenBackbone":
        """Load from the Hub or a folder.

        Args:
            name_or_path (`str`): Hub id, folder, or the name of a demo backbone.
            image_size (`int`, *optional*): Another input side than the processor's.
            resize_ratio (`float`, *optional*): Another resize before the crop than the processor's.
            image_mean (`Sequence[float]`, *optional*): Another mean per channel than the processor's, for [0, 1].
            image_std (`Sequence[float]`, *optional*): Likewise the standard deviation.
            feature_pooling (`str`, *optional*): Another pooling than the model's own.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Precision of the weights.
            attn_implementation (`str`, *optional*): `"eager"`, `"sdpa"` and the like; Transformers' choice otherwise.
            revision (`str`, *optional*): Branch, tag or commit.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether code of the repository may run.
            strip_prefix (`str`, *optional*): What the names of the weights begin with and should not, such as
                `_orig_mod.` of a compiled model.
            token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

        Raises:
            FileNotFoundError: If a path is not there.
            HubError: If the repository can't be had; the message says what to do.
            ImportError: If the model needs a package that is not installed, such as timm.
            ValueError: If it is not a vision model that `AutoModel` knows, or lacks weights that its features need.
        """
        name_or_path = existing_path_or_id(name_or_path, "model")
        source = str(demo_folder(name_or_path) or name_or_path)
        hub_kwargs = {"revision": revision, "trust_remote_code": trust_remote_code, "token": token}
        hub_kwargs["local_files_only"] = must_use_cache(source, "model")
        config, model, info = load_model(name_or_path, source, strip_prefix, dtype, attn_implementation, hub_kwargs)
        try:
            preprocessing = Preprocessing.from_pretrained(source, config, image_size, **hub_kwargs)
        except OSError as error:
            raise model_error(error, name_or_path) from error
        except ValueError as error:
            raise ValueError(f"'{name_or_path}': {error}") from error
        name = Path(name_or_path).name if Path(source).is_dir() else name_or_path  # a path says where, not what
        if image_size not in (None, preprocessing.image_size):
            name = f"{name}@{image_size}"
        preprocessing = preprocessing.override(image_size, resize_ratio, image_mean, image_std)
        random_weights = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        backbone = cls(model, preprocessing, feature_pooling, name, random_weights)
        check_weights(backbone, random_weights, info["unexpected_keys"])
        backbone.revision = cached_commit(source, revision)
        backbone.source = source
        _say(backbone.describe())
        return backbone

    @classmethod
    def wrap(
        cls, model: "str | os.PathLike[str] | nn.Module | FrozenBackbone", processing_class: Any = None
    ) -> "FrozenBackbone":
        """A backbone of an id, a folder, a live model of Transformers or timm, or a backbone itself.

        Raises:
            TypeError: If it is something else, or a live module whose input nothing describes.
        """
        if isinstance(model, cls):
            return model
        if isinstance(model, (str, os.PathLike)):
            return cls.from_pretrained(os.fspath(model))
        if not isinstance(model, nn.Module):
            found = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            expected = "a Hub id, a folder, a torch.nn.Module or a FrozenBackbone"
            raise TypeError(f"Expected as model {expected}, found {found}.")
        if is_timm(model) and processing_class is None:
            values = cast(Any, model).pretrained_cfg
            preprocessing, name = Preprocessing.from_timm(values), values.get("architecture")
            return cls(without_timm_head(model), preprocessing, name=name)
        config: Any = getattr(model, "config", None)
        if processing_class is not None:
            return cls(model, Preprocessing.from_processor(processing_class, config))
        if source := getattr(config, "_name_or_path", ""):
            return cls(model, Preprocessing.from_pretrained(source, config), name=Path(source).name)
        raise TypeError(
            f"What does {type(model).__name__} take? Give its image processor as processing_class, or wrap it: "
            "FrozenBackbone(module, Preprocessing(image_size=…, mean=…, std=…))."
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of shape (B, dim) of images of shape (B, 3, image_size, image_size) in [0, 1], not normalised."""
        return pool(self._call(images), self.pooling)

    def forward_with_layers(self, images: torch.Tensor) -> torch.Tensor:
        """Features and, beside them, the mean of each of `layers`: shape (B, sum(widths))."""
        if not self.layers:
            return self(images)
        output = self._call(images, output_hidden_states=True)
        return torch.cat([pool(output, self.pooling), *pool_layers(output, self.layers)], dim=1)

    @torch.no_grad()
    def encode(self, images: Any, with_layers: bool = False, batch_size: int = 64) -> torch.Tensor:
        """Features of shape (N, dim) of N images, without gradients, on the backbone's device.

        Args:
            images: 8-bit crops as a tensor of shape (N, 3, image_size, image_size), on any device. Or images of any
                size, which are resized and cropped as real images are: a `PIL.Image.Image`, an array (H, W, 3) of
                uint8, a list or a batch of either, [`LabelledImages`], or a `datasets.Dataset` with an image column.
            with_layers (`bool`, *optional*, defaults to `False`): Put the backbone's layers beside the features, as
                [`~FrozenBackbone.forward_with_layers`] does.
            batch_size (`int`, *optional*, defaults to 64): Images per forward pass, of those that are no tensor.

        Raises:
            TypeError: If values are floats: images in [0, 1] are for the backbone itself, `backbone(images)`.
        """
        if not isinstance(images, torch.Tensor):
            batches = centre_crops(images, self.preprocessing.geometry, batch_size)
            features = [self.encode(crops, with_layers) for crops in batches]
            return torch.cat(features) if features else self.mean.new_empty(0, sum(self.widths))
        if images.is_floating_point():
            raise TypeError(
                "encode takes 8-bit images; for floats in [0, 1] call the backbone itself: backbone(images)."
            )
        pixels = images.to(self.mean.device, non_blocking=True).to(self.mean.dtype) / 255
        return self.forward_with_layers(pixels) if with_layers else self(pixels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Sizes of the features and of each of its layers."""
        return (self.dim, *self.layer_dims)

    def with_layers(self, count: int) -> "FrozenBackbone":
        """The same backbone, which tells of its layers too: the last blocks of its last `count` stages.

        Of a plain transformer, which has one stage, they are `count` depths from the middle to the end. What an answer
        in the middle of a network says is shared by more networks than what the end says. A model that shows no hidden
        states has none, with a warning.

        Args:
            count (`int`): How many at most; none for zero.
        """
        backbone = copy.copy(self)
        backbone.layers, backbone.layer_dims = (), ()
        if count:
            output = self._blank_output(self.image_size, output_hidden_states=True)
            backbone.layers = find_layers(output, count)
            backbone.layer_dims = tuple(z.shape[1] for z in pool_layers(output, backbone.layers))
            if not backbone.layers:
                logger.warning("%s shows no layers (hidden states): it is matched by its features alone", self.name)
        return backbone

    def takes(self, side: int) -> bool:
        """Whether images of that side have features of the same size, and layers, and leave the model as it is.

        Swin does not take what is smaller than its windows: it makes these smaller, for good.
        """
        if side == self.image_size:
            return True
        before = _numbers_of(self.model)
        output = self._blank_output(side, **({"output_hidden_states": True} if self.layers else {}))
        if changed := [of for of, numbers in before.items() if _own_numbers(of) != numbers]:
            for module in changed:
                vars(module).update(before[module])
            return False
        try:
            spaces = [pool(output, self.pooling), *pool_layers(output, self.layers)]
        except (AttributeError, IndexError, ValueError):  # there is no output, or it is another
            return False
        return tuple(z.shape[1] for z in spaces) == self.widths

    @property
    def patch_size(self) -> int:
        """Pixels that a side has to be a multiple of: those of a patch, or eight where there are none."""
        patch = getattr(vision_config(self.model), "patch_size", None)
        patch = patch[0] if isinstance(patch, (list, tuple)) and patch else patch
        return patch if isinstance(patch, int) and patch > 0 else 8

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, and so of the features."""
        return next(self.model.parameters(), self.mean).dtype

    @property
    def has_text(self) -> bool:
        """Whether its features are in a space that images and text share, with a text model and a tokenizer beside."""
        return self.source is not None and self.pooling == "projection" and hasattr(self.model, "get_text_features")

    def cast(self, dtype: torch.dtype) -> "FrozenBackbone":
        """One with the weights in that precision: itself where they are, else a copy. Normalisation keeps its own."""
        if self.dtype == dtype:
            return self
        backbone = copy.deepcopy(self)
        backbone.model.to(dtype)
        backbone.__dict__.pop("fingerprint", None)
        return backbone

    def prepared(self, device: torch.device, bf16: bool | None = False) -> "FrozenBackbone":
        """On a device, float32 weights in bfloat16 if `bf16`."""
        backbone = self.to(device)
        return backbone.cast(torch.bfloat16) if bf16 and backbone.dtype == torch.float32 else backbone

    def describe(self) -> dict[str, Any]:
        """What decides the features, besides the weights: for logs, cards and configuration files."""
        p = self.preprocessing
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "revision": self.revision,
            "pooling": self.pooling,
            "feature_size": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "image_size": p.image_size,
            "resize_ratio": round(p.resize_ratio, 6),
            "mean": [float(f"{value:.7g}") for value in p.mean],
            "std": [float(f"{value:.7g}") for value in p.std],
            "resample": p.resample,
            **({"flip_channels": True} if p.flip_channels else {}),
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of everything that decides the features: weights, precision, pooling and preprocessing."""
        return model_fingerprint(self.model, {**self.describe(), "name": None, "revision": None})

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Stays in eval mode: frozen means frozen."""
        return super().train(False)

    def _call(self, images: torch.Tensor, **kwargs: Any) -> Any:
        """The model's own output of images in [0, 1]."""
        if self.model.training:  # a live model is its owner's too
            self.model.eval()
        pixels = (self.preprocessing.channels_of(images) - self.mean) / self.std
        return call_model(self.model, pixels.to(self.dtype, memory_format=self._memory_format), **kwargs)

    @torch.no_grad()
    def _blank_output(self, side: int, **kwargs: Any) -> Any:
        """The output for two blank images of a side; `None` where it takes none such."""
        try:
            return self._call(self.mean.new_zeros(2, 3, side, side), **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model's own code may raise anything
            asked = " and hidden states" if kwargs else ""
            logger.info("%s gives nothing for %d x %d pixels%s: %s", self.name, side, side, asked, first_line(error))
            return None

    @torch.no_grad()
    def _try_two_images(self) -> Any:
        """The output for two blank images: whatever does not fit is found before any work.

        Raises:
            ValueError: If the model does not take such images, or does not return something for each.
        """
        kind, side = type(self.model).__name__, self.image_size
        try:
            output = self._call(self.mean.new_zeros(2, 3, side, side))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model's own code may raise anything
            native = getattr(vision_config(self.model), "image_size", None) or getattr(self.model, "image_size", None)
            advice = "leave image_size out" if native not in (None, side) else _WRAP_IT
            raise ValueError(
                f"{kind} does not take images of {side} x {side} pixels"
                f"{f' (its configuration says {native})' if native else ''}, in {self.dtype}: {advice}. It said: "
                f"{first_line(error)}"
            ) from error
        tokens = output if isinstance(output, torch.Tensor) else getattr(output, "last_hidden_state", None)
        if tokens is None or tokens.ndim < 2 or len(tokens) != 2:
            found = "no last_hidden_state" if tokens is None else f"an output of shape {tuple(tokens.shape)}"
            raise ValueError(f"{kind} does not give one feature vector per image ({found} for two): {_WRAP_IT}.")
        return output


def check_names_differ(names: Sequence[str]) -> None:
    """Refuse backbones of one name, which would be one column of a table.

    Raises:
        ValueError: If two are the same.
    """
    if len(set(names)) < len(names):
        found = ", ".join(names)
        raise ValueError(
            f"Two backbones have the same name: {found}. Rename a folder, or give a FrozenBackbone a name."
        )


def _numbers_of(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """The numbers that each of its modules keeps besides weights, such as the size of a window."""
    return {module: _own_numbers(module) for module in model.modules()}


def _own_numbers(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, (int, float, tuple))}


def _is_convolutional(model: nn.Module) -> bool:
    """Whether it is made of convolutions, beyond the one that cuts an image into patches."""
    kinds = [type(module) for module in model.modules()]
    return kinds.count(nn.Conv2d) > max(1, kinds.count(nn.Linear))


def _say(described: dict[str, Any]) -> None:
    """What was loaded: in a line, and for the log all that decides its features."""
    features, images = "%(feature_size)d features (%(pooling)s)", "images of %(image_size)d pixels"
    logger.info(f"%(name)s: %(architecture)s, {features}, {images}, %(dtype)s", described)
    logger.debug("%s", json.dumps(described))
