"""Asking the Hub once whether it is there, and saying in a sentence what is wrong when it is not."""

import functools
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, get_session, is_offline_mode, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

logger = logging.getLogger(__name__)

# An unreachable Hub costs 23 s of retries for each file asked for; one question that takes this long at most does not.
_TIMEOUT = 5.0


class HubError(OSError):
    """What a user can mend about a repository, in one sentence."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """What an error says first, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_gated(page: str) -> str:
    """What a sentence about a gated repository ends with."""
    return f"is gated: ask for access at {page}, then run `hf auth login`."


def check_repo_id(repo_id: str) -> None:
    """Refuse what can't be `user/name`.

    Raises:
        ValueError: If it can't be.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"'{repo_id}' can't be the name of a repository: {first_line(error)}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"Expected a repository 'user/name', found '{repo_id}'.")


def check_tag(tag: str) -> None:
    """Refuse what git takes for no tag (`git help check-ref-format`).

    Raises:
        ValueError: If it is none.
    """
    if _NO_TAG.search(tag) or not tag.isprintable():
        raise ValueError(f"'{tag}' can't be a tag in git: use letters, digits, dots and dashes, as in v1.0.")


# Empty; signs with a meaning; a part that begins with a dot or ends with .lock; a dash or slash at an end.
_NO_TAG = re.compile(r"^$|[ ~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|^[-/]|[./]$|^@$")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the Hub answered with, if that is behind an error."""
    return next((cause.response.status_code for cause in causes(error) if isinstance(cause, HfHubHTTPError)), None)


def is_network_error(error: BaseException) -> bool:
    """Whether the Hub could not be asked, or something in between answered in its place."""
    return any(isinstance(cause, (HTTPError, json.JSONDecodeError)) for cause in causes(error))


def explain(error: BaseException, repo_id: str, repo_type: str, wanted: str = "write") -> str:
    """What is behind an error of the Hub's client and what to do about it, as a sentence.

    Args:
        error (`BaseException`): What was raised.
        repo_id (`str`): The repository that was meant.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        wanted (`str`, *optional*, defaults to `"write"`): What the token has to allow, or `"read"`.
    """
    page = page_of(repo_id, repo_type)
    if any(isinstance(cause, GatedRepoError) for cause in causes(error)):
        return f"it {is_gated(page)}"
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes(error)):
        return f"it has no such revision: {page}/tree/main lists branches and tags."
    said_by_xet = next((found for cause in causes(error) if (found := _XET_STATUS.search(str(cause)))), None)
    status = status_of(error) or (int(said_by_xet[1]) if said_by_xet else None)
    if status is None and not is_network_error(error):
        return f"{': '.join(dict.fromkeys(first_line(cause).rstrip('.') for cause in causes(error)))}."
    status, said = status or 503, said_by_server(error)
    if advice := _ADVICE.get(status):
        words = f" It said: {said}" if said and status in _WITH_REASON else ""
        return advice.format(wanted=wanted, endpoint=constants.ENDPOINT) + words
    if status >= 500 or status == 408:
        return f"{constants.ENDPOINT} answered {status}: try again later."
    return f"{constants.ENDPOINT} refuses it for good (status {status}): {said or 'it does not say why.'}"


def page_of(repo_id: str, repo_type: str, endpoint: str = "https://huggingface.co") -> str:
    """The address of a repository."""
    return f"{endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def said_by_server(error: BaseException) -> str | None:
    """Why the Hub refused something, in its own words, as the end of a sentence; `None` where it says nothing."""
    found = (cause.server_message for cause in causes(error) if isinstance(cause, HfHubHTTPError))
    lines = [line.strip().rstrip(".") for line in (next(found, None) or "").splitlines()]
    said = "; ".join(dict.fromkeys(line for line in lines if line))[:_MAX_SAID]
    return f"{said}." if said else None


_ADVICE = {
    401: "the token was refused, as expired or mistyped: run `hf auth login` with a new one.",
    403: "the token may not do this: make one that may {wanted} at https://huggingface.co/settings/tokens and run "
    "`hf auth login`, or name a repository of your own.",
    404: "it does not exist, or the token can't see it: check the name, or run `hf auth login`.",
    409: "another change of it is under way: wait a moment, then run the same command again.",
    412: "somebody else has changed it meanwhile: look at what it holds, then run the same command again.",
    429: "too many requests: wait some minutes, then run the same command again.",
    503: "{endpoint} can't be reached, or is too busy: run the same command again when it is back.",
}

# Where the server knows better than we what is in the way.
_WITH_REASON = {401, 403, 412}

# Characters of what a server says; some answer with a page.
_MAX_SAID = 1000

# hf_xet, which tries again by itself, has no exception types for what the server answered.
_XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")


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
            f"folder of that name, and it is not in the cache ({constants.HF_HUB_CACHE}). Give a local folder as "
            f"{flag or repo_type}, or use the built-in demo, which needs no network: model demo-vit, dataset "
            "demo-digits."
        )
    logger.warning("%s can't be reached: using the cached copy of the %s '%s'", constants.ENDPOINT, repo_type, repo_id)
    return True


def cached_commit(repo_id: str, revision: str | None = None) -> str | None:
    """The commit of a model's configuration in the cache; `None` for a folder."""
    if Path(repo_id).is_dir():
        return None
    path = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def model_error(error: OSError, name: str) -> HubError:
    """What to raise instead of what Transformers raises where a model can't be had."""
    if any(isinstance(cause, GatedRepoError) for cause in causes(error)):
        return HubError(f"'{name}' {is_gated(f'https://huggingface.co/{name}')}")
    return HubError(f"'{name}' can't be loaded: {first_line(error)}")


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


def without_folders(name: str) -> str:
    """A name as it may be published: of a path its last part, whether it is there or not yet."""
    looks_like_path = name.startswith(("~", ".", "/")) or Path(name).is_absolute()
    return last_part(name) if looks_like_path or Path(name.partition("@")[0]).exists() else name


def last_part(path: str) -> str:
    """What a file or folder is called, without where it is; `.` and `..` have names too."""
    return Path(os.path.abspath(os.path.expanduser(path))).name if path else path


def _is_cached(repo_id: str, repo_type: str) -> bool:
    from datasets.config import HF_DATASETS_CACHE  # here, since it loads all of datasets

    # A name without user is not looked for there: folders of that name are cached in the same place.
    if repo_type == "dataset" and "/" in repo_id and (Path(HF_DATASETS_CACHE) / repo_id.replace("/", "___")).is_dir():
        return True
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return False
    return any(repo.repo_id == repo_id and repo.repo_type == repo_type and repo.size_on_disk for repo in repos)
