"""What identifies a frozen model, so that cached features are never another one's."""

import hashlib
import inspect
import json
from typing import Any

import torch
import transformers
from torch import nn


def model_fingerprint(model: nn.Module, described: dict[str, Any]) -> str:
    """A digest of a model's weights with their precision, its configuration or code, and how it is used.

    Args:
        model (`torch.nn.Module`): The model.
        described (`dict`): How it is used: pooling, preprocessing.
    """
    described = {**described, "model": _settings_and_code(model)}
    digest = hashlib.sha256(json.dumps(described, default=repr).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings_and_code(model: nn.Module) -> list[Any]:
    """What decides features besides weights: a model's configuration, or the code and constants of a module."""
    config = getattr(model, "config", None)
    if isinstance(config, transformers.PreTrainedConfig):
        unrelated = {"transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id"}
        return [{name: value for name, value in config.to_dict().items() if name not in unrelated}]
    own = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    code = sorted(map(_source, own))
    constants = [
        sorted((k, v) for k, v in vars(m).items() if isinstance(v, (int, float, str))) for m in model.modules()
    ]
    return [repr(model), code, constants]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed at a prompt
        return kind.__qualname__
