"""What `LGMConfig` chose until 0.2: features alone are matched, from noise, at a constant learning rate.

Benchmarks that were measured with it keep it, so that their commands give their figures.
"""

from typing import Any

FEATURES_ALONE: dict[str, Any] = {
    "objective": "lgm",
    "layers": 0,
    "view_sizes": [],
    "init": "noise",
    "init_weight": 0.0,
    "lr_scheduler_type": "constant",
}
