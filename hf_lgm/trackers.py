"""Where runs are logged to, and what has to be installed for it; free of torch."""

import difflib
from collections.abc import Sequence
from importlib.util import find_spec

# What Transformers knows: the package of each, and the modules of which any will do.
TRACKERS = {
    "azure_ml": ("azureml-core", ("azureml",)),
    "clearml": ("clearml", ("clearml",)),
    "codecarbon": ("codecarbon", ("codecarbon",)),
    "comet_ml": ("comet-ml", ("comet_ml",)),
    "dagshub": ("dagshub mlflow", ("dagshub",)),
    "dvclive": ("dvclive", ("dvclive",)),
    "flyte": ("flytekit", ("flytekit",)),
    "kubeflow": ("kubeflow", ()),  # asks a server that the job's environment names
    "mlflow": ("mlflow", ("mlflow",)),
    "neptune": ("neptune", ("neptune",)),
    "swanlab": ("swanlab", ("swanlab",)),
    "tensorboard": ("tensorboard", ("tensorboard", "tensorboardX")),
    "trackio": ("trackio", ("trackio",)),
    "wandb": ("wandb", ("wandb",)),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that there are not, or that are not installed.

    Raises:
        ImportError: If one is not installed; the message says what to type.
        ValueError: If one is not known.
    """
    if list(names) in ([], ["all"], ["none"]):
        return
    for name in names:
        if name not in TRACKERS:
            similar = difflib.get_close_matches(name.lower(), TRACKERS, 1, cutoff=0.6)
            meant = f"; did you mean {similar[0]}?" if similar else "."
            raise ValueError(f"report_to takes all, none, or of {', '.join(TRACKERS)}, found '{name}'{meant}")
        package, modules = TRACKERS[name]
        if modules and not any(map(find_spec, modules)):
            raise ImportError(f"report_to='{name}' needs a package that is not installed: pip install {package}")
