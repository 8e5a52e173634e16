"""Any vision model as one function: images in [0, 1] to features, frozen, with a gradient to the pixels."""

import functools
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from huggingface_hub.errors import GatedRepoError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from .demo import demo_folder
from .fingerprint import model_fingerprint
from .hub import HubError, existing_path_or_id, must_use_cache
from .preprocessing import Preprocessing

logger = logging.getLogger(__name__)

Pooling = Literal["cls", "pooler", "mean", "gap", "projection"]

# Their outputs are not one feature map or token sequence per image of a batch.
_REFUSED = ("pixtral", "videomae", "hgnet_v2")


class FrozenBackbone(nn.Module):
    """A pre-trained model from images to features: weights and statistics never move, gradients reach the pixels.

    Args:
        model (`torch.nn.Module`): A vision model of Transformers, a dual model with `get_image_features`, or any
            module that maps images of shape (B, 3, side, side) to features (B, D), tokens (B, L, D) or maps
            (B, D, h, w).
        preprocessing ([`Preprocessing`]): The side it takes, mean and standard deviation.
        pooling (`str`, *optional*): How the output becomes one vector: `"cls"` (first token), `"pooler"`, `"mean"` (of
            all tokens), `"gap"` (of the map) or `"projection"` (the dual models' shared space). Asked of the model
            where not given.
        name (`str`, *optional*): What tables and cards call it; defaults to the class name.
        random_weights (`Iterable[str]`, *optional*): Parameters that were not in the checkpoint, so that a pooler that
            was never trained is not used.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        pooling: Pooling | None = None,
        name: str | None = None,
        random_weights: "frozenset[str] | set[str]" = frozenset(),
    ) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        config = getattr(model, "config", None)
        is_backbone_class = isinstance(model, PreTrainedModel) and type(model).__name__.endswith("Backbone")
        if getattr(config, "model_type", None) in _REFUSED or is_backbone_class:
            raise ValueError(
                f"{type(model).__name__} does not give one feature vector per image. Wrap it in a torch.nn.Module "
                "that does, and pass that to FrozenBackbone."
            )
        if pooling is not None and pooling not in get_args(Pooling):
            raise ValueError(f"--feature_pooling must be one of {', '.join(get_args(Pooling))}, found '{pooling}'.")
        if config is not None and hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # ViT-MAE drops patches at random, in eval mode too …
        self.model = model.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.image_size = preprocessing.image_size
        self.name = name or type(model).__name__
        self._is_dual = _takes_text(model)
        self._random_weights = frozenset(random_weights)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1), persistent=False)
        self._forward_kwargs = self._resolution_kwargs(config)
        self.pooling: Pooling = pooling or self._default_pooling()

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
        revision: str | None = None,
        trust_remote_code: bool = False,
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
            revision (`str`, *optional*): Branch, tag or commit.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether code of the repository may run.
            token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.

        Raises:
            FileNotFoundError: If a path is not there.
            HubError: If the repository can't be had; the message says what to do.
            ValueError: If it is not a vision model that `AutoModel` knows.
        """
        name_or_path = existing_path_or_id(name_or_path, "--model")
        source = str(demo_folder(name_or_path) or name_or_path)
        hub_kwargs = {"revision": revision, "trust_remote_code": trust_remote_code, "token": token}
        hub_kwargs["local_files_only"] = must_use_cache(source, "model")
        try:
            config = AutoConfig.from_pretrained(source, **hub_kwargs)
            model, info = AutoModel.from_pretrained(
                source, config=config, dtype=dtype, output_loading_info=True, **hub_kwargs
            )
            preprocessing = Preprocessing.from_pretrained(source, config, **hub_kwargs)
        except OSError as error:
            raise _explain(error, name_or_path) from error
        except ValueError as error:
            raise ValueError(
                f"'{name_or_path}' can't be loaded with AutoModel ({str(error).splitlines()[0]}). Expected a vision "
                "model; any other torch.nn.Module works live: FrozenBackbone(module, Preprocessing(image_size=…))."
            ) from error
        name = Path(name_or_path).name if Path(source).is_dir() else name_or_path  # a path says where, not what
        if image_size not in (None, preprocessing.image_size):
            name = f"{name}@{image_size}"
        preprocessing = preprocessing.override(image_size, resize_ratio, image_mean, image_std)
        backbone = cls(model, preprocessing, feature_pooling, name, info["missing_keys"])
        logger.info("Backbone %s", json.dumps(backbone.describe()))
        return backbone

    @classmethod
    def wrap(cls, model: "str | nn.Module | FrozenBackbone", processing_class: Any = None) -> "FrozenBackbone":
        """A backbone of an id, a folder, a live Transformers model, or a backbone itself.

        Raises:
            TypeError: If it is a live module whose input nothing describes.
        """
        if isinstance(model, cls):
            return model
        if isinstance(model, str):
            return cls.from_pretrained(model)
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
        return self._pool(self._call(images)).flatten(1)

    @functools.cached_property
    def dim(self) -> int:
        """Size D of a feature vector, found by one forward pass."""
        with torch.no_grad():
            return self(self._blank_image()).shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, and so of the features."""
        return next(self.model.parameters(), self.mean).dtype

    def describe(self) -> dict[str, Any]:
        """What decides the features, besides the weights: for logs, cards and configuration files."""
        p = self.preprocessing
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "revision": getattr(getattr(self.model, "config", None), "_commit_hash", None),
            "pooling": self.pooling,
            "feature_size": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "image_size": p.image_size,
            "resize_ratio": round(p.resize_ratio, 6),
            "mean": [round(value, 6) for value in p.mean],
            "std": [round(value, 6) for value in p.std],
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of everything that decides the features: weights, precision, pooling and preprocessing."""
        return model_fingerprint(self.model, {**self.describe(), "name": None, "revision": None})

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Stays in eval mode: frozen means frozen."""
        return super().train(False)

    def _call(self, images: torch.Tensor) -> Any:
        """The model's own output of images in [0, 1]."""
        encode = cast(Callable[..., Any], self.model.get_image_features if self._is_dual else self.model)
        kwargs: dict[str, Any] = self._forward_kwargs
        config = getattr(self.model, "config", None)
        if config is not None and hasattr(config, "mask_ratio"):
            patches = (self.image_size // config.patch_size) ** 2  # … and shuffles them, unless told an order
            kwargs = {**kwargs, "noise": torch.arange(patches, device=images.device).expand(len(images), -1)}
        return encode(((images - self.mean) / self.std).to(self.dtype), **kwargs)

    def _blank_image(self) -> torch.Tensor:
        return self.mean.new_zeros(1, self.mean.shape[1], self.image_size, self.image_size)

    def _resolution_kwargs(self, config: Any) -> dict[str, bool]:
        """Fixed-size position embeddings have to be told to interpolate."""
        native = getattr(getattr(config, "vision_config", config), "image_size", None)
        method = cast(Callable[..., Any], self.model.get_image_features if self._is_dual else self.model.forward)
        accepts = "interpolate_pos_encoding" in inspect.signature(method).parameters
        is_native = native in (None, self.image_size, [self.image_size] * 2, (self.image_size,) * 2)
        return {"interpolate_pos_encoding": True} if accepts and not is_native else {}

    def _default_pooling(self) -> Pooling:
        """The output that the model was trained to be read by."""
        if self._is_dual:
            return "projection"
        with torch.no_grad():
            output = self._call(self._blank_image())
        if isinstance(output, torch.Tensor):
            return "pooler" if output.ndim == 2 else "mean" if output.ndim == 3 else "gap"
        if getattr(output, "image_embeds", None) is not None:
            return "projection"
        if getattr(output, "cls_token_value", None) is not None:
            return "cls"
        if getattr(output, "pooler_output", None) is not None and not self._pooler_is_unusable():
            return "pooler"
        if output.last_hidden_state.ndim == 4:
            return "gap"
        has_class_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in self.model.named_parameters()
        )
        return "cls" if has_class_token else "mean"

    def _pooler_is_unusable(self) -> bool:
        """A tanh head on the class token (ViT, DeiT), or one that the checkpoint does not have: random."""
        head = getattr(self.model, "pooler", None)
        return hasattr(head, "dense") or any("pooler" in name for name in self._random_weights)

    def _pool(self, output: Any) -> torch.Tensor:
        is_tensor = isinstance(output, torch.Tensor)
        tokens: torch.Tensor = output if is_tensor else output.last_hidden_state
        pooled: torch.Tensor | None = output if is_tensor else getattr(output, "pooler_output", None)
        if self.pooling == "projection":
            embeds = getattr(output, "image_embeds", None)
            pooled = embeds if embeds is not None else pooled
        if self.pooling == "cls":
            token = getattr(output, "cls_token_value", None)
            if token is not None:
                return token
        if self.pooling in ("pooler", "projection"):
            if pooled is None:
                raise ValueError(f"{self.name} has no {self.pooling}: choose another --feature_pooling, such as mean.")
            return pooled
        if (self.pooling == "gap") != (tokens.ndim == 4) or tokens.ndim < 3:
            raise ValueError(
                f"{self.name} gives {'a map' if tokens.ndim == 4 else 'tokens' if tokens.ndim == 3 else 'vectors'} of "
                f"shape {tuple(tokens.shape)}, which --feature_pooling {self.pooling} does not fit. Leave it out."
            )
        if self.pooling == "cls":
            return tokens[:, 0]
        if self.pooling == "gap":
            channels_last = tokens.ndim == 4 and self.model.__class__.__name__.startswith("Sam2")
            return tokens.mean(dim=(1, 2) if channels_last else (2, 3))
        return tokens.mean(dim=1)


def _takes_text(model: nn.Module) -> bool:
    """Whether images go through `get_image_features`, as in models of images and text."""
    main_input = getattr(model, "main_input_name", "pixel_values")
    if not isinstance(model, PreTrainedModel) or main_input == "pixel_values":
        return False
    if hasattr(model, "get_image_features"):
        return True
    raise ValueError(
        f"{type(model).__name__} takes '{main_input}', not images. Expected a vision model, or a dual model with "
        "get_image_features; pass its vision part live: FrozenBackbone(module, Preprocessing(image_size=…))."
    )


def _explain(error: OSError, name: str) -> OSError:
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return HubError(
            f"'{name}' is gated: ask for access at https://huggingface.co/{name}, then run `hf auth login`."
        )
    return HubError(f"'{name}' can't be loaded: {str(error).strip().splitlines()[0]}")
