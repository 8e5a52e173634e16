"""A Hub on 127.0.0.1: what the unmodified clients ask of it, over real HTTP, with faults to switch on."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import lz4.frame

TOKEN = "hf_a_token_that_may_do_everything"
READ_TOKEN = "hf_a_token_that_may_read"
LFS_SUFFIXES = (".parquet", ".png", ".safetensors", ".webp")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "other", "unknown"}
_NO_SCOPE = 'You don\'t have the rights to write under the namespace "user"'
_BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclass
class Repo:
    """A repository: commits in their order, each a whole tree of files, and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a tree on top; its name depends on all that came before."""
        digest = hashlib.sha1("".join(self.commits).encode())
        for path, data in sorted(files.items()):
            digest.update(path.encode() + data)
        self.commits[digest.hexdigest()] = files
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        revision = self.head if revision == "main" else self.tags.get(revision, revision)
        return revision if revision in self.commits else None


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD path" contains `where`, so many times.

    `action` is a status, or "drop before": the connection ends and nothing was done; "drop after": what was asked is
    done, and the answer is lost; "slow": the answer comes late.
    """

    where: str
    action: int | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """What the server has, and who may read it.

    Args:
        url: Its address, for `HF_ENDPOINT`.
        repos: By ("models", "datasets" or "spaces", "user/name").
        private: Ids that are only there with a token.
        gated: Ids whose files nobody may read.
        foreign: Ids that no token here may write to.
        uploads: Files by sha256 that were uploaded by LFS.
        chunks: Parts of files that were uploaded by xet.
        faults: What goes wrong; each is used up.
        requests: Method and path of everything that was asked.
    """

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    uploads: dict[str, bytes] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def add(self, kind: str, repo_id: str, folder) -> Repo:
        """Serve the files of a folder as a repository of one commit."""
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        repo = self.repos[kind, repo_id] = Repo()
        repo.commit({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})
        return repo

    def files(self, kind: str, repo_id: str) -> dict[str, bytes]:
        """What a clone of the main branch would have."""
        repo = self.repos[kind, repo_id]
        return repo.commits[repo.head]

    def upload(self, oid: str, size: int) -> bytes:
        """A file by its sha256, which came by LFS, or by xet as chunks in a row."""
        for first in range(len(self.chunks)):
            data = b"".join(self.chunks[first:])[:size]
            if hashlib.sha256(data).hexdigest() == oid:
                return data
        return self.uploads[oid]

    def fault_of(self, request: str) -> Fault | None:
        """The fault that meets a request, which is one less from now on."""
        for fault in self.faults:
            if fault.times and fault.where in request:
                fault.times -= 1
                return fault
        return None


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub, for as long as the context."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_this_process(monkeypatch, cache) -> Iterator[Hub]:
    """A hub that this process reads from and writes to, by LFS; nobody waits between tries."""
    from huggingface_hub import constants

    from hf_lgm.hub import is_hub_reachable

    with serve() as hub:
        for name, value in (
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_CACHE", str(cache)),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        is_hub_reachable.cache_clear()
        yield hub
    is_hub_reachable.cache_clear()


_API = re.compile(
    r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"
    r"(?:/(revision|tree|paths-info|preupload|commit|tag|refs)(?:/([^/]+))?(?:/(.*))?)?"
)
_WRITE = re.compile(r"/api/(?:models|datasets|spaces)/([^/]+/[^/]+)/auth-check/write")
_FILE = re.compile(r"(?:/(datasets|spaces))?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS = re.compile(r"(?:/(datasets|spaces))?/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent apart: 40 ms each time
    hub: Hub
    is_lost: bool

    def log_message(self, *args) -> None:
        """Not to the terminal."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = self.hub.fault_of(request)
        self.is_lost = fault is not None and fault.action == "drop after"
        if fault and fault.action == "drop before":
            self.close_connection = True
        elif fault and isinstance(fault.action, int):
            message = {401: _BAD_TOKEN, 403: _NO_SCOPE}.get(fault.action, "made to fail")
            body = b"<html>busy</html>" if "page" in fault.headers else json.dumps({"error": message}).encode()
            self._send(fault.action, body, {"X-Error-Message": message, **fault.headers})
        else:
            if fault and fault.action == "slow":
                threading.Event().wait(0.5)
            self._route(path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _route(self, path: str, body: bytes) -> None:
        of_json = {"/api/validate-yaml": self._validate, "/api/repos/create": self._create}
        if path in of_json:
            of_json[path](json.loads(body))
        elif path.startswith(("/v1/", "/v2/", "/lfs/")) or path.endswith("/xet-write-token/main"):
            self._store(path, body)
        elif found := _LFS.fullmatch(path):
            self._lfs_batch(json.loads(body)["objects"])
        elif found := _WRITE.fullmatch(path):
            if self._may_write(found[1]):
                self._send_json({})
        elif found := _API.fullmatch(path):
            kind, repo_id, what, revision, inside = found.groups()
            if repo := self._repo(kind, repo_id):
                self._api(repo_id, repo, what, revision or "main", inside or "", body)
        elif found := _FILE.fullmatch(path):
            kind, repo_id, revision, name = found.groups()
            if repo := self._repo(kind or "models", repo_id):
                self._file(repo_id, repo, revision, name)
        else:
            self._send(404)

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _validate(self, card: dict) -> None:
        """Of the metadata of a card, what the Hub's users get wrong most."""
        found = re.search(r"^license: (.+)$", card["content"], re.MULTILINE)
        if found is None or found[1] in LICENSES:
            return self._send_json({"errors": [], "warnings": []})
        message = f'"license" must be one of [{", ".join(sorted(LICENSES))}]'
        return self._send_json({"errors": [{"message": message}], "warnings": []}, 400)

    def _may_write(self, repo_id: str = "") -> bool:
        if self._token == TOKEN and repo_id not in self.hub.foreign:
            return True
        is_known = self._token in (TOKEN, READ_TOKEN)
        self._send(403 if is_known else 401, headers={"X-Error-Message": _NO_SCOPE if is_known else _BAD_TOKEN})
        return False

    def _repo(self, kind: str, repo_id: str) -> Repo | None:
        repo = self.hub.repos.get((kind, repo_id))
        may_read = self._token in (TOKEN, READ_TOKEN)
        if repo is None or (repo_id in self.hub.private and not may_read):
            self._send(404 if may_read else 401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    def _create(self, wanted: dict) -> None:
        if not self._may_write():
            return
        repo_id = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        key, address = (f"{wanted.get('type', 'model')}s", repo_id), f"{self.hub.url}/{repo_id}"
        if wanted.get("type") in ("dataset", "space"):
            address = f"{self.hub.url}/{wanted['type']}s/{repo_id}"
        if wanted.get("type") == "space" and wanted.get("sdk") != "static":
            return self._send_json({"error": "a Space needs an sdk"}, 400)
        if key in self.hub.repos:
            return self._send_json({"error": "You already created this repo", "url": address}, 409)
        self.hub.repos[key] = Repo()
        self.hub.repos[key].commit({".gitattributes": b"*.parquet filter=lfs\n"})
        if wanted.get("visibility") == "private":
            self.hub.private.add(repo_id)
        return self._send_json({"url": address, "name": repo_id})

    def _lfs_batch(self, objects: list[dict]) -> None:
        if self._may_write():
            answers = []
            for wanted in objects:
                upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}
                verify = {"href": f"{self.hub.url}/lfs/verify", "header": {}}
                is_there = wanted["oid"] in self.hub.uploads
                answers.append(wanted if is_there else {**wanted, "actions": {"upload": upload, "verify": verify}})
            self._send_json({"transfer": "basic", "objects": answers})

    def _store(self, path: str, body: bytes) -> None:
        """Large files, by LFS or xet."""
        if path.startswith("/lfs/"):
            self._upload(path.removeprefix("/lfs/"), body)
        else:
            self._xet(path, body)

    def _upload(self, name: str, body: bytes) -> None:
        if name == "verify":
            return self._send(200 if json.loads(body)["oid"] in self.hub.uploads else 404)
        if hashlib.sha256(body).hexdigest() != name:
            return self._send(400)
        self.hub.uploads[name] = body
        return self._send(200)

    def _xet(self, path: str, body: bytes) -> None:
        """What hf_xet asks of a content store: it takes chunks, and knows none of them beforehand."""
        if path.endswith("/xet-write-token/main"):
            return self._send_json({"casUrl": self.hub.url, "accessToken": "t", "exp": int(time.time()) + 3600})
        if path.startswith("/v1/xorbs/"):
            self.hub.chunks += _chunks_of(body)
            return self._send_json({"was_inserted": True})
        if path.startswith("/v2/shards"):
            return self._send(200, b'{"type": "result", "result": 1}\n', {"Content-Type": "application/x-ndjson"})
        return self._send(404)  # no grants to upload elsewhere, no chunks of others, no telemetry

    def _api(self, repo_id: str, repo: Repo, what: str | None, revision: str, inside: str, body: bytes) -> None:
        commit = repo.resolve(revision)
        if commit is None:
            return self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if what in (None, "revision"):
            return self._send_json(self._info(repo_id, repo, commit))
        if what == "refs":
            branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}]
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in repo.tags.items()]
            return self._send_json({"branches": branches, "converts": [], "tags": tags})
        if what == "tree":
            return self._tree(files, inside)
        if what == "paths-info":
            wanted = json.loads(body)["paths"]
            return self._send_json([_entry(path, files[path]) for path in wanted if path in files])
        if what == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            return self._send_json({"files": [_preupload(path, files.get(path)) for path in asked]})
        if not self._may_write(repo_id):
            return None
        if what == "tag":
            name = json.loads(body)["tag"]
            if name in repo.tags:
                return self._send_json({"error": "tag exists"}, 409)
            repo.tags[name] = commit
            return self._send_json({})
        return self._commit(repo_id, repo, [json.loads(line) for line in body.splitlines()])

    def _info(self, repo_id: str, repo: Repo, commit: str) -> dict:
        is_gated = "manual" if repo_id in self.hub.gated else False
        siblings = [{"rfilename": path, **_blob(path, data)} for path, data in repo.commits[commit].items()]
        info = {"id": repo_id, "sha": commit, "private": repo_id in self.hub.private, "gated": is_gated}
        card = re.search(rb"^license: (.+)$", repo.commits[commit].get("README.md", b""), re.MULTILINE)
        card_data = {"license": card[1].decode()} if card else None
        return {**info, "siblings": siblings, "cardData": card_data, "tags": [], "downloads": 0, "likes": 0}

    def _tree(self, files: dict[str, bytes], inside: str) -> None:
        prefix = f"{inside}/" if inside else ""
        below = {path: data for path, data in files.items() if path.startswith(prefix)}
        if inside and not below:
            return self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        is_recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() == "true"
        entries = {}
        for path, data in below.items():
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if is_recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                oid = hashlib.sha1(folder.encode()).hexdigest()
                entries[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
            if is_recursive or len(parts) == 1:
                entries[path] = _entry(path, data)
        return self._send_json([entries[path] for path in sorted(entries)])

    def _commit(self, repo_id: str, repo: Repo, lines: list[dict]) -> None:
        files = dict(repo.commits[repo.head])
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", repo.head) != repo.head:
                return self._send_json({"error": "A commit has happened since. Please refresh."}, 412)
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.upload(value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files)
        return self._send_json({"commitOid": commit, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{commit}"})

    def _file(self, repo_id: str, repo: Repo, revision: str, name: str) -> None:
        commit = repo.resolve(revision)
        if repo_id in self.hub.gated:
            return self._send(403, headers={"X-Error-Code": "GatedRepo"})
        if commit is None:
            return self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        if name not in repo.commits[commit]:
            return self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = repo.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(name, data)}"'}
        if name.endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, {**headers, "Accept-Ranges": "bytes"})
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, data[first : last + 1], headers)

    def _send_json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        if self.is_lost:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _chunks_of(xorb: bytes) -> list[bytes]:
    """The chunks of a xorb: each is a version, its length, its compression (0 none, 1 LZ4), its full length, data."""
    chunks, at = [], 0
    while at < len(xorb) and xorb[at] == 0:
        size, scheme = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        data = xorb[at + 8 : at + 8 + size]
        chunks.append({0: bytes, 1: lz4.frame.decompress}[scheme](data))
        at += 8 + size
    return chunks


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _oid(path: str, data: bytes) -> str:
    """What identifies a file's contents: its sha256 where it is stored by LFS, else git's."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else _git_oid(data)


def _blob(path: str, data: bytes) -> dict:
    blob = {"blobId": _git_oid(data), "size": len(data)}
    if path.endswith(LFS_SUFFIXES):
        blob["lfs"] = {"sha256": _oid(path, data), "size": len(data), "pointerSize": 134}
    return blob


def _preupload(path: str, data: bytes | None) -> dict:
    mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
    oid = None if data is None else _oid(path, data)
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _entry(path: str, data: bytes) -> dict:
    entry = {"type": "file", "path": path, "oid": _git_oid(data), "size": len(data)}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": _oid(path, data), "size": len(data), "pointerSize": 134}
    return entry
