"""A small Hub over real HTTP on 127.0.0.1, for the unmodified clients: repositories are folders."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_a_token_that_may_read_everything"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_FILE = re.compile(r"(?:/(datasets))?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Hub:
    """What the server has: folders by (kind, id), and who may read them.

    Args:
        url: Its address, for `HF_ENDPOINT`.
        repos: Folders by ("models" or "datasets", "user/name").
        private: Ids that are only there with the token.
        gated: Ids whose files nobody may read.
        requests: Method and path of everything that was asked.
    """

    url: str = ""
    repos: dict[tuple[str, str], Path] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def add(self, kind: str, repo_id: str, folder) -> None:
        """Serve a folder as a repository."""
        self.repos[kind, repo_id] = Path(folder)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub, for as long as the context."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _commit(folder: Path) -> str:
    """One commit, which changes with the contents."""
    digest = hashlib.sha1()
    for path in _files(folder):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        """Not to the terminal."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/":
            return self._send(200)
        if found := _API.fullmatch(path):
            kind, repo_id, what, revision, inside = found.groups()
            if folder := self._folder(kind, repo_id):
                self._api(kind, repo_id, folder, what, inside or "", body)
        elif found := _FILE.fullmatch(path):
            kind, repo_id, revision, name = found.groups()
            if folder := self._folder(kind or "models", repo_id):
                self._file(repo_id, folder, name)
        else:
            self._send(404)

    def _folder(self, kind: str, repo_id: str) -> Path | None:
        folder = self.hub.repos.get((kind, repo_id))
        may_read = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if folder is None or (repo_id in self.hub.private and not may_read):
            self._send(404 if may_read else 401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        return folder

    def _api(self, kind: str, repo_id: str, folder: Path, what: str | None, inside: str, body: bytes) -> None:
        if what in (None, "revision"):
            siblings = [{"rfilename": str(path.relative_to(folder))} for path in _files(folder)]
            is_gated = "manual" if repo_id in self.hub.gated else False
            info = {"id": repo_id, "sha": _commit(folder), "private": repo_id in self.hub.private, "gated": is_gated}
            self._send_json({**info, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        elif what == "tree":
            if inside and not (folder / inside).is_dir():
                return self._send(404, headers={"X-Error-Code": "EntryNotFound"})
            is_recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() == "true"
            paths = sorted((folder / inside).glob("**/*" if is_recursive else "*"))
            self._send_json([_entry(path, folder) for path in paths])
        else:
            wanted = json.loads(body)["paths"]
            self._send_json([_entry(folder / name, folder) for name in wanted if (folder / name).exists()])
        return None

    def _file(self, repo_id: str, folder: Path, name: str) -> None:
        if repo_id in self.hub.gated:
            return self._send(403, headers={"X-Error-Code": "GatedRepo"})
        path = folder / name
        if not path.is_file():
            return self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _commit(folder)})
        data = path.read_bytes()
        headers = {"X-Repo-Commit": _commit(folder), "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, {**headers, "Accept-Ranges": "bytes"})
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, data[first : last + 1], headers)

    def _send_json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(path: Path, folder: Path) -> dict:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
    data = path.read_bytes()
    return {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}
