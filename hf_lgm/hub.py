"""Asking the Hub once whether it is there, and saying in a sentence what is wrong when it is not."""

import functools
import logging
from pathlib import Path

from huggingface_hub import constants, get_session, is_offline_mode, scan_cache_dir
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


def must_use_cache(repo_id: str, repo_type: str) -> bool:
    """Whether a repository has to come from the local cache, because the Hub can't be reached.

    Raises:
        HubError: If it can't come from there either.
    """
    if Path(repo_id).is_dir() or is_hub_reachable():
        return False
    if not _is_cached(repo_id, repo_type):
        raise HubError(
            f"The {repo_type} '{repo_id}' can't be fetched: {constants.ENDPOINT} can't be reached, there is no local "
            f"folder of that name, and it is not in the cache ({constants.HF_HUB_CACHE}). Give the path of a local "
            "folder, or run without arguments for the built-in demo, which needs no network."
        )
    logger.warning("%s can't be reached: using the cached copy of the %s '%s'", constants.ENDPOINT, repo_type, repo_id)
    return True


def check_not_a_missing_path(name: str, flag: str) -> None:
    """Refuse what can only be a path and is not there, before it is taken for a Hub id.

    Raises:
        FileNotFoundError: If `name` has the form of a path and no such folder exists.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path and not Path(name).expanduser().exists():
        raise FileNotFoundError(
            f"{flag}: there is no folder '{name}'. Expected a local folder or a Hub id 'user/name'."
        )


def _is_cached(repo_id: str, repo_type: str) -> bool:
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return False
    return any(repo.repo_id == repo_id and repo.repo_type == repo_type and repo.size_on_disk for repo in repos)
