"""Files of a folder to one repository on the Hub: in one commit, never twice, through a bad network too."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ..hub import HubError, check_repo_id, check_tag, explain, first_line, is_network_error, page_of, status_of
from .files import CARD_FILE, CONFIG_FILE, MAX_BYTES, PREVIEW_FILE, read_json
from .markdown import one_line
from .provenance import made_through
from .schema import check_config

logger = logging.getLogger(__name__)
_NOT_OURS_TO_DELETE = ".gitattributes"
_ATTEMPTS = 5
_MAX_WAIT = 60.0  # seconds
_TRANSIENT = {408, 429, 500, 502, 503, 504}
Result = TypeVar("Result")


@dataclass(frozen=True)
class RepoState:
    """What a repository holds at one moment.

    Args:
        head (`str`): The last commit of its main branch.
        private (`bool`): Whether only its owner sees it.
        files (`dict[str, tuple[str, int]]`): Digest (sha256 where stored by LFS, else git's) and size by path.
        tags (`dict[str, str]`): Commits by name.
    """

    head: str | None
    private: bool
    files: dict[str, tuple[str, int]]
    tags: dict[str, str]

    def holds(self, files: dict[str, Path]) -> bool:
        """Whether these files are there, bit for bit."""
        return all(path in self.files and self.files[path][0] in _digests(local) for path, local in files.items())


@dataclass(frozen=True)
class HubRepository:
    """A dataset, model or Space repository that results are published in.

    What the Hub's client does not retry (creating, committing, tagging) is retried here with back-off. A commit names
    its parent, and before each try it is looked whether an earlier one arrived whose answer was lost: there are never
    two.

    Args:
        repo_id (`str`): `user/name`.
        repo_type (`str`): `"dataset"`, `"model"`, or `"space"`: a static one.
        config (`dict`): The `lgm_config.json` of what is to be published; tells a new version from something else.
        private (`bool`, *optional*): Whether a new repository is private; decided by `why_private` where not given.
        why_private (`str`, *optional*): Why it should be, as the end of "… is private, because"; `None` for no reason.
        tag (`str`, *optional*): Tag of the commit.
        overwrite (`bool`, *optional*, defaults to `False`): Replace whatever the repository holds.
        token (`str`, *optional*): Access token; defaults to the one stored by `hf auth login`.
    """

    repo_id: str
    repo_type: Literal["dataset", "model", "space"]
    config: dict[str, Any] = field(default_factory=dict)
    private: bool | None = None
    why_private: str | None = None
    tag: str | None = None
    overwrite: bool = False
    token: str | None = None

    def open(self, card: str | None = None) -> None:
        """Create it, unless it is there and may be written to.

        Args:
            card (`str`, *optional*): The README that is to go there, for the Hub to look at before anything else.

        Raises:
            HubError: If it can't be, or it holds something else; the message says what to do.
        """
        try:
            check_repo_id(self.repo_id)
            if self.tag is not None:
                check_tag(self.tag)
        except ValueError as error:
            raise HubError(str(error)) from error
        if not (self.token or get_token()):
            raise HubError(f"There is no token to write to '{self.repo_id}' with: run `hf auth login`.")
        if card is not None:
            self._persist("publish the card of", lambda: self._validate(card))
        state = self._persist("look at", self._state)
        if state is not None:
            self._check(state)
            return self._persist("write to", self._check_write_access)
        private = self.private if self.private is not None else self.why_private is not None
        how: dict[str, Any] = {"space_sdk": "static"} if self.repo_type == "space" else {}
        self._persist("create", lambda: self._api.create_repo(**self._target, **how, private=private, exist_ok=True))
        if private and self.private is None:
            logger.warning(
                "%s is private, because %s: private=False makes a new one public, or change it in its settings",
                self.repo_id,
                self.why_private,
            )
        return None

    def push(self, files: dict[str, Path], message: str) -> str:
        """Put files there in one commit, unless they are there, and tag it; returns the address.

        Args:
            files (`dict[str, Path]`): Local files by their path in the repository.
            message (`str`): Of the commit.

        Raises:
            HubError: If it did not work; the message says what the repository holds, and what to do.
        """
        self.open(files[CARD_FILE].read_text(encoding="utf-8") if CARD_FILE in files else None)
        commit = self._persist("commit to", lambda: self._commit_once(files, message))
        if self.tag:
            self._persist("tag", lambda: self._tag_once(commit))
        address = page_of(self.repo_id, self.repo_type, constants.ENDPOINT)
        logger.info("Published %s, commit %s%s", address, commit[:8], f", tag {self.tag}" if self.tag else "")
        return address

    @property
    def _api(self) -> HfApi:
        return HfApi(endpoint=constants.ENDPOINT, token=self.token)

    @property
    def _target(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}

    def _validate(self, card: str) -> None:
        """Let the Hub look at a card's metadata: what it refuses for a commit, it refuses here."""
        question = {"content": card, "repoType": self.repo_type}
        headers = build_hf_headers(token=self.token)
        hf_raise_for_status(
            get_session().post(f"{constants.ENDPOINT}/api/validate-yaml", json=question, headers=headers)
        )

    def _check_write_access(self) -> None:
        try:
            self._api.auth_check(**self._target, write=True)
        except HfHubHTTPError as error:
            if status_of(error) != 404:  # a server that can't be asked this
                raise

    def _state(self) -> RepoState | None:
        """What is there; `None` where there is no such repository."""
        try:
            info: Any = self._api.repo_info(**self._target, files_metadata=True)
        except RepositoryNotFoundError as error:
            if status_of(error) == 403:  # gated or forbidden, so it exists
                raise
            return None
        files = {s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id, s.size or 0) for s in info.siblings or []}
        refs = self._api.list_repo_refs(**self._target)
        return RepoState(info.sha, bool(info.private), files, {tag.name: tag.target_commit for tag in refs.tags})

    def _check(self, state: RepoState) -> None:
        """Refuse to write over something else, or to show what should not be seen."""
        address = f"'{self.repo_id}'"
        if self.private and not state.private:
            raise HubError(f"{address} is public: make it private in its settings, or name another repository.")
        if self.private is None and self.why_private and not state.private:
            raise HubError(
                f"{address} is public, and this should be private, because {self.why_private}: add private=False to "
                "publish it all the same, or name another repository."
            )
        others = sorted(set(state.files) - {_NOT_OURS_TO_DELETE})
        if others and not self.overwrite and not self._is_earlier_version(state):
            what = _title(self._config_of(state)) or f"{len(others)} other files, such as {others[0]}"
            raise HubError(
                f"{address} holds {what}: name another repository, or add overwrite=True to replace all that it holds."
            )

    def _is_earlier_version(self, state: RepoState) -> bool:
        found = self._config_of(state)
        return bool(found) and _identity(found) == _identity(self.config)

    def _config_of(self, state: RepoState) -> dict[str, Any]:
        """The configuration of what the repository holds, empty where it is nothing of ours."""
        size = state.files.get(CONFIG_FILE, ("", 0))[1]
        if not 0 < size <= MAX_BYTES[CONFIG_FILE]:
            return {}
        path = self._api.hf_hub_download(**self._target, filename=CONFIG_FILE, revision=state.head)
        try:
            check_config(found := read_json(Path(path), dict))
        except ValueError:
            return {}
        return found

    def _commit_once(self, files: dict[str, Path], message: str) -> str:
        """The commit that holds the files: the one that is there, or a new one."""
        state = self._state()
        if state is None:
            raise HubError(f"'{self.repo_id}' is gone: run the same command again.")
        self._check(state)
        is_ours = self._is_earlier_version(state)
        stale = [
            path
            for path in sorted(set(state.files) - set(files) - {_NOT_OURS_TO_DELETE})
            if not is_ours or path.startswith("data/") or path in (PREVIEW_FILE, CARD_FILE)
        ]
        if state.holds(files) and not stale and state.head:
            logger.info("%s holds all of it already: no new commit", self.repo_id)
            return state.head
        if self.tag in state.tags:
            raise HubError(
                f"'{self.repo_id}' has a tag '{self.tag}' already, of other contents: choose another tag. Nothing "
                "was changed."
            )
        operations = [CommitOperationAdd(path, str(local)) for path, local in files.items()]
        deletions = [CommitOperationDelete(path) for path in stale]
        commit = self._api.create_commit(
            **self._target,
            operations=[*operations, *deletions],
            commit_message=message,
            parent_commit=state.head,
        )
        return commit.oid

    def _tag_once(self, commit: str) -> None:
        state = self._state()
        found = state.tags.get(self.tag or "") if state else None
        if found not in (None, commit):
            raise HubError(
                f"The tag '{self.tag}' of '{self.repo_id}' is another commit, {str(found)[:8]}: choose another tag. "
                "What was to be published is there, without a tag."
            )
        if found is None:
            self._api.create_tag(**self._target, tag=self.tag or "", revision=commit)

    def _persist(self, what: str, call: Callable[[], Result]) -> Result:
        """The result of a call that is tried again while the trouble may pass; what remains, in a sentence."""
        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            retry=retry_if_exception(_may_pass),
            wait=_seconds_to_wait,
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return retrying(call)
        except HubError:
            raise
        except (OSError, RuntimeError, ValueError, HTTPError) as error:
            outcome = "Nothing was changed."
            if what == "tag":
                outcome = f"What was to be published is there, without the tag '{self.tag}'."
            elif what == "commit to" and _may_pass(error):
                outcome = "If it arrived all the same, that command finds it, and does not commit it twice."
            raise HubError(
                f"Could not {what} '{self.repo_id}': {explain(error, self.repo_id, self.repo_type)} {outcome}"
            ) from error


def _identity(config: dict[str, Any]) -> list[Any]:
    """What makes one published thing a new version of another."""
    return [
        config.get("artifact"),
        config.get("source", {}).get("dataset"),
        made_through(config),
        config.get("settings", {}).get("images_per_class"),
        config.get("settings", {}).get("real_images_per_class", 0),  # earlier versions had none
        config.get("settings", {}).get("objective"),
        config.get("baseline", {}).get("kind"),
    ]


def _title(config: dict[str, Any]) -> str | None:
    """What a repository of ours holds, in words."""
    if not config:
        return None
    source, through = config.get("source", {}).get("dataset", "?"), " and ".join(made_through(config)) or "?"
    per_class = config.get("settings", {}).get("images_per_class", "?")
    return one_line(f"another {config.get('artifact', 'set')} ({source} through {through}, {per_class} per class)")


def _digests(path: Path) -> tuple[str, str]:
    """How the Hub names the contents of a file: by LFS, and by git."""
    data = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return hashlib.sha256(data).hexdigest(), git.hexdigest()


def _may_pass(error: BaseException) -> bool:
    """Whether the same call may work in a moment: a lost connection, or a server that is busy."""
    if isinstance(error, HubError):
        return False
    status = status_of(error)
    return status in _TRANSIENT if status is not None else is_network_error(error)


def _seconds_to_wait(state: RetryCallState) -> float:
    """What the server asks for, else twice as long as before."""
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return min(_MAX_WAIT, float(asked) if asked.isdigit() else 2.0 ** (state.attempt_number - 1))


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s; trying again in %.0f s", first_line(error) if error else "no answer", seconds)
