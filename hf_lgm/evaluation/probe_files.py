"""The files of a published probe, which may be anybody's: checked once, on entry."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..demo import DEMO_MODELS
from ..hub import existing_path_or_id, first_line
from ..publishing.files import CONFIG_FILE, MAX_BYTES, check_files, fetch_files, read_json
from ..publishing.provenance import is_hub_id
from ..publishing.schema import check_probe_config

HEAD_FILE = "head.safetensors"
_MAX_BYTES = {HEAD_FILE: 2**30, CONFIG_FILE: MAX_BYTES[CONFIG_FILE]}


def read_probe(name_or_path: str, revision: str | None = None) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """The configuration of a probe, its weight (C, D) and its bias (C,), in float32.

    Args:
        name_or_path (`str`): A folder, or a Hub model id.
        revision (`str`, *optional*): Branch, tag or commit.

    Raises:
        FileNotFoundError: If there is no head.
        HubError: If the repository can't be had.
        ValueError: If what is there is not a head, or its backbone is none that may be loaded for it.
    """
    name = existing_path_or_id(name_or_path, "ProbeModel")
    is_here = Path(name).is_dir()
    folder = Path(name) if is_here else fetch_files(name, revision, None, "model", _MAX_BYTES)
    if not (folder / HEAD_FILE).is_file():
        raise FileNotFoundError(f"'{name}' has no {HEAD_FILE}: pipeline('image-classification') may load it.")
    check_files(name, folder, _MAX_BYTES)
    check_probe_config(config := read_json(folder / CONFIG_FILE, dict))
    source = config["backbone"]["source"]
    if not is_here and not (source in DEMO_MODELS or (is_hub_id(source) and not Path(source).exists())):
        raise ValueError(
            f"The probe names as its backbone '{source}', which is no model of the Hub: what is on this machine is "
            "not loaded for it."
        )
    weight, bias = _read_head(folder / HEAD_FILE, len(config["class_names"]), config["backbone"]["feature_size"])
    return config, weight, bias


def _read_head(path: Path, num_classes: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (C, D) and bias (C,) of a linear layer, which may be anybody's.

    Raises:
        ValueError: If they are of another shape, or no finite numbers.
    """
    try:
        tensors = load_file(path)
    except Exception as error:  # a damaged file makes its reader raise anything
        raise ValueError(f"{path.name}: expected tensors, found {first_line(error)}. Is the file whole?") from error
    found = []
    for name, shape in (("weight", (num_classes, dim)), ("bias", (num_classes,))):
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            what = "none" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise ValueError(f"{path.name}, {name}: expected numbers of shape {shape}, found {what}.")
        if not tensor.float().isfinite().all():
            raise ValueError(f"{path.name}, {name}: expected numbers, found NaN or infinity. Is the file whole?")
        found.append(tensor.float())
    return found[0], found[1]
