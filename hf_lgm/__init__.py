"""Distil a labelled image dataset into a few synthetic images through any frozen vision backbone."""

from .backbone import FrozenBackbone
from .baselines import select_baseline
from .config import LGMConfig
from .data import LabelledImages
from .distilled_set import DistilledSet
from .distiller import LGMDistiller
from .evaluation import evaluate_probe
from .loading import load_images
from .preprocessing import Preprocessing
from .probe import ProbeProtocol
from .streaming import StreamEncoder
from .transfer import transfer_matrix

__all__ = [
    "DistilledSet",
    "FrozenBackbone",
    "LGMConfig",
    "LGMDistiller",
    "LabelledImages",
    "Preprocessing",
    "ProbeProtocol",
    "StreamEncoder",
    "evaluate_probe",
    "load_images",
    "select_baseline",
    "transfer_matrix",
]
