"""What is installed and where things are kept: to be pasted into a report.

hf-lgm env
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from .parsing import parse_arguments
from .terminal import say

PACKAGES = (
    "hf_lgm",
    *("torch", "transformers", "accelerate", "datasets", "huggingface_hub", "diffusers", "safetensors", "evaluate"),
    *("numpy", "pillow", "scikit-learn", "timm", "torchvision"),
)


def main() -> None:
    """Print it, one line each."""
    parse_arguments((), __doc__ or "", sys.argv[1:])

    import torch
    from huggingface_hub import constants

    from ..features.cache import assets_folder

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = torch.cuda.get_device_name() if device and device.type == "cuda" else str(device or "cpu")
    found = {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": f"{name}, {torch.accelerator.device_count()} of them" if device else name,
        "Hub": "offline" if constants.HF_HUB_OFFLINE else constants.ENDPOINT,
        "downloads": constants.HF_HUB_CACHE,
        "features and results": assets_folder(""),
    }
    width = max(map(len, found))
    say("\n".join(f"{key:<{width}}  {value}" for key, value in found.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
