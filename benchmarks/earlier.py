"""What was chosen until 0.2 where nothing else was said: benchmarks that were measured with it keep it."""

from pathlib import Path
from typing import Any

import yaml

_RECIPE = Path(__file__).parent.parent / "hf_lgm" / "recipes" / "features-alone.yaml"

FEATURES_ALONE: dict[str, Any] = yaml.safe_load(_RECIPE.read_text(encoding="utf-8"))
