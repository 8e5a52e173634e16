"""Distil a labelled image dataset into a few synthetic images through any frozen vision backbone."""

import importlib
from typing import TYPE_CHECKING, Any

from . import former

if TYPE_CHECKING:
    from .analysis.analysis import Analysis, analyze
    from .backbones.backbone import FrozenBackbone
    from .backbones.preprocessing import Preprocessing
    from .config import LGMConfig
    from .data.labelled_images import LabelledImages
    from .data.loading import load_images
    from .distiller import LGMDistiller
    from .evaluation.baselines import select_baseline
    from .evaluation.comparison import compare
    from .evaluation.evaluator import evaluate_probe
    from .evaluation.probe_model import ProbeModel
    from .evaluation.transfer import transfer_matrix
    from .features.streaming import StreamEncoder
    from .publishing.distilled_set import DistilledSet
    from .settings import ProbeProtocol

__version__ = "0.2.0"

__all__ = [
    "Analysis",
    "DistilledSet",
    "FrozenBackbone",
    "LGMConfig",
    "LGMDistiller",
    "LabelledImages",
    "Preprocessing",
    "ProbeModel",
    "ProbeProtocol",
    "StreamEncoder",
    "analyze",
    "compare",
    "evaluate_probe",
    "load_images",
    "select_baseline",
    "transfer_matrix",
]

# Where each name is: what nobody asks for is not loaded, torch least of all.
_PLACES = {
    "Analysis": "analysis.analysis",
    "DistilledSet": "publishing.distilled_set",
    "FrozenBackbone": "backbones.backbone",
    "LGMConfig": "config",
    "LGMDistiller": "distiller",
    "LabelledImages": "data.labelled_images",
    "Preprocessing": "backbones.preprocessing",
    "ProbeModel": "evaluation.probe_model",
    "ProbeProtocol": "settings",
    "StreamEncoder": "features.streaming",
    "analyze": "analysis.analysis",
    "compare": "evaluation.comparison",
    "evaluate_probe": "evaluation.evaluator",
    "load_images": "data.loading",
    "select_baseline": "evaluation.baselines",
    "transfer_matrix": "evaluation.transfer",
}


former.install()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'hf_lgm' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
