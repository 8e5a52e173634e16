"""Asking the Hub once whether it is there, and saying in a sentence what is wrong when it is not."""

import functools
import logging
from pathlib import Path

from datasets.config import HF_DATASETS_CACHE
from huggingface_hub import constants, get_session, is_offline_mode, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound, HTTPError

logger = logging.getLogger(__name__)

# An unreachable Hub costs 23 s of retries for each file asked for; one question that takes this long at most does not.
_TIMEOUT = 5.0


class HubError(OSError):
    """What a user can mend about a repository, in one sentence."""


@functools.cache
def is_hub_reachable() -> bool:
    """Whether the Hub answers at all; asked once per process."""
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_TIMEOUT)
    except HTTPError:  # the base class of the HTTP client that huggingface_hub uses
        return False
    return True


def must_use_cache(repo_id: str, repo_type: str, flag: str | None = None) -> bool:
    """Whether a repository has to come from the local cache, because the Hub can't be reached.

    Args:
        repo_id (`str`): Its id, or a folder.
        repo_type (`str`): `"model"` or `"dataset"`.
        flag (`str`, *optional*): What a folder is given with; the type's own flag where not given.

    Raises:
        HubError: If it can't come from there either.
    """
    if Path(repo_id).is_dir() or is_hub_reachable():
        return False
    if not _is_cached(repo_id, repo_type):
        raise HubError(
            f"The {repo_type} '{repo_id}' can't be fetched: {constants.ENDPOINT} can't be reached, there is no local "
            f"folder of that name, and it is not in the cache ({constants.HF_HUB_CACHE}). Give a local folder with "
            f"{flag or f'--{repo_type}'}, or run scripts/distill.py without arguments for the built-in demo, which "
            "needs no network."
        )
    logger.warning("%s can't be reached: using the cached copy of the %s '%s'", constants.ENDPOINT, repo_type, repo_id)
    return True


def cached_commit(repo_id: str, revision: str | None = None) -> str | None:
    """The commit of a model's configuration in the cache; `None` for a folder."""
    if Path(repo_id).is_dir():
        return None
    path = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def existing_path_or_id(name: str, flag: str) -> str:
    """The name, with a leading `~` expanded.

    Raises:
        FileNotFoundError: If it can only be a path, and there is no such folder; or it is a file.
    """
    if Path(name).expanduser().is_file():
        raise FileNotFoundError(f"{flag}: '{name}' is a file. Give the folder that it is in.")
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path and not Path(name).expanduser().exists():
        raise FileNotFoundError(
            f"{flag}: there is no folder '{name}'. Expected a local folder or a Hub id 'user/name'."
        )
    return str(Path(name).expanduser()) if name.startswith("~") else name


def _is_cached(repo_id: str, repo_type: str) -> bool:
    # A name without user is not looked for there: folders of that name are cached in the same place.
    if repo_type == "dataset" and "/" in repo_id and (Path(HF_DATASETS_CACHE) / repo_id.replace("/", "___")).is_dir():
        return True
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return False
    return any(repo.repo_id == repo_id and repo.repo_type == repo_type and repo.size_on_disk for repo in repos)
