"""Where modules of 0.1 are now: imports from their former places work until 0.3, with a warning.

For it, importing the package adds a finder to Python's import system, which is asked last and answers for these alone.
"""

import importlib
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

# Former modules, and where what was in each is looked for.
_PLACES = {
    "alignment": ["evaluation.transfer"],
    "architectures": ["backbones.architectures"],
    "augmentation": ["settings", "data.augmentation"],
    "backbone": ["backbones.backbone"],
    "baselines": ["settings", "evaluation.baselines", "features.coresets"],
    "callbacks": ["distillation.callbacks"],
    "card": ["publishing.card"],
    "checkpoint": [
        "distillation.checkpoint",
        "distillation.checkpoint_folders",
        "distillation.signals",
        "distillation.watch",
    ],
    "chunking": ["distillation.encoding"],
    "classifiers": ["evaluation.classifiers", "features.coresets"],
    "columns": ["data.columns", "settings"],
    "comparison": ["evaluation.comparison"],
    "distilled_set": ["publishing.distilled_set"],
    "encoding": ["distillation.encoding"],
    "feature_cache": ["features.cache"],
    "figures": ["publishing.figures", "publishing.comparison_figure", "publishing.timelapse"],
    "fingerprint": ["backbones.fingerprint"],
    "initialization": ["distillation.initialization"],
    "latents": ["distillation.latents"],
    "loading": ["data.loading"],
    "metrics": ["evaluation.metrics"],
    "objectives": ["settings", "distillation.objectives"],
    "parallel": ["distributed"],
    "planning": ["distillation.planning"],
    "pooling": ["settings", "backbones.pooling"],
    "preprocessing": ["backbones.preprocessing", "data.images"],
    "probe": ["settings", "evaluation.probe"],
    "probe_model": ["evaluation.probe_model"],
    "provenance": ["publishing.provenance"],
    "real_features": ["distillation.real_features"],
    "results": ["publishing.results", "evaluation.scoring"],
    "scores": ["evaluation.scoring"],
    "splits": ["data.loading"],
    "stream_pass": ["features.stream_pass"],
    "stream_rows": ["features.stream_rows"],
    "streaming": ["features.streaming"],
    "synthetic": ["settings", "distillation.synthetic"],
    "transfer": ["evaluation.transfer", "evaluation.transfer_plot"],
    "zero_shot": ["evaluation.references"],
}


class FormerPlaces:
    """Finds former modules for Python's import system; each looks its names up where they are now."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A module for a former place; `None` for any other."""
        package, _, module = name.rpartition(".")
        return ModuleSpec(name, FormerPlaces()) if package == __package__ and module in _PLACES else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Python's own."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Let names be looked up when they are asked for."""
        places = [f"{__package__}.{place}" for place in _PLACES[module.__name__.rpartition(".")[2]]]
        logger.warning("%s is %s now; the old place goes with 0.3.", module.__name__, " or ".join(places))

        def look_up(name: str) -> Any:
            for place in places:
                if hasattr(found := importlib.import_module(place), name):
                    return getattr(found, name)
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        module.__getattr__ = look_up  # type: ignore[method-assign]


def install() -> None:
    """Let Python's import system ask here last."""
    if FormerPlaces not in sys.meta_path:
        sys.meta_path.append(FormerPlaces)
