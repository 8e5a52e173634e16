"""Results on disk, by the content of all that decides them: a table that grows by a row computes that row."""

import functools
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from .feature_cache import assets_folder
from .results import ProbeResult
from .versions import library_versions

logger = logging.getLogger(__name__)


def cached_result(key: dict[str, Any], compute: Callable[[], ProbeResult], accelerator: Accelerator) -> ProbeResult:
    """The result that was kept under this key, or else the one that `compute` gives, which is kept.

    Args:
        key (`dict`): All that decides the result; the versions of the libraries and our own code are added.
        compute (`Callable`): May have all processes work together: all of them call it, or none.
        accelerator (`accelerate.Accelerator`): The first process reads and writes.
    """
    text = json.dumps({**key, "versions": library_versions(), "code": _code()}, sort_keys=True)
    path = assets_folder("results") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    [found] = broadcast_object_list([_read(path) if accelerator.is_main_process else None])
    if found is not None:
        return found
    result = compute()
    if accelerator.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")  # a file that is there is whole
        temporary.write_text(json.dumps(result.to_dict()), encoding="utf-8")
        os.replace(temporary, path)
    return result


@functools.cache
def _code() -> str:
    """A digest of this package: a number that was found by other code is not found again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> ProbeResult | None:
    if not path.is_file():
        return None
    try:
        return ProbeResult(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        logger.warning("Computing the damaged result %s again (%s)", path, error)
        return None
