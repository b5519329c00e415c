"""A small stand-in for the Hub on loopback: serves repositories from a folder the way the Hub does.

``folder/models/OWNER/NAME`` and ``folder/datasets/OWNER/NAME[@REVISION]`` hold the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"
PARQUET_COMMIT = "facade" * 6 + "beef"


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    seen: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.posted = self.rfile.read(length)
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.seen.append(f"{self.command} {path}")
        if path == "/":
            return self._send(200, b"stand-in", body)
        if api := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            return self._api(*api.groups(), body)
        if file := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(.+?)/((?!convert|parquet).+)", path):
            kind, repo, revision, name = file.groups()
            if revision == "refs" and name.startswith("convert/parquet/"):
                revision, name = "refs/convert/parquet", name.removeprefix("convert/parquet/")
            return self._file("datasets" if kind else "models", repo, revision, name, body)
        return self._send(404, b"{}", body)

    def _root(self, kind: str, repo: str, revision: str) -> Path | None:
        parquet = revision in ("refs/convert/parquet", PARQUET_COMMIT)
        root = self.folder / kind / (f"{repo}@parquet" if parquet else repo)
        return root if root.is_dir() else None

    def _api(self, kind: str, repo: str, rest: str | None, body: bool) -> None:
        rest = rest or ""
        parquet = "refs/convert/parquet" in rest or PARQUET_COMMIT in rest
        revision = "refs/convert/parquet" if parquet else "main"
        root = self._root(kind, repo, revision)
        if root is None:
            headers = {"X-Error-Code": "RepoNotFound" if revision == "main" else "RevisionNotFound"}
            return self._send(404, b'{"error": "not found"}', body, headers)
        files = sorted(p for p in root.rglob("*") if p.is_file())
        if rest == "" or rest.startswith("/revision/"):
            info = {
                "id": repo,
                "_id": "0",
                "sha": PARQUET_COMMIT if parquet else COMMIT,
                "private": False,
                "disabled": False,
                "gated": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": p.relative_to(root).as_posix()} for p in files],
            }
            return self._send(200, json.dumps(info).encode(), body)
        if rest.startswith("/tree/"):
            inside = re.sub(r"^/tree/(refs/convert/parquet|[^/]+)/?", "", rest)
            listed = [self._entry(root, p) for p in files if p.relative_to(root).as_posix().startswith(inside)]
            folders = {q for p in files for q in p.relative_to(root).parents if q != Path(".")}
            listed += [{"type": "directory", "path": q.as_posix(), "oid": "0" * 40, "size": 0} for q in sorted(folders)]
            return self._send(200, json.dumps(listed).encode(), body)
        if rest.startswith("/paths-info/"):
            text = self.posted.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else re.findall(r"paths=([^&]*)", text)
            found = [self._entry(root, root / unquote(p)) for p in wanted if (root / unquote(p)).is_file()]
            return self._send(200, json.dumps(found).encode(), body)
        return self._send(404, b"{}", body)

    @staticmethod
    def _entry(root: Path, path: Path) -> dict[str, object]:
        data = path.read_bytes()
        oid = hashlib.sha1(data).hexdigest()
        return {"type": "file", "path": path.relative_to(root).as_posix(), "size": len(data), "oid": oid}

    def _file(self, kind: str, repo: str, revision: str, name: str, body: bool) -> None:
        root = self._root(kind, repo, revision)
        if root is None:
            return self._send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        if not (root / name).is_file():
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = (root / name).read_bytes()
        commit = PARQUET_COMMIT if "@parquet" in root.name else COMMIT
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, body, headers)

    def _send(self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class StandInHub:
    """The server, for the length of a ``with`` block."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        handler = type("Handler", (_Handler,), {"folder": folder, "seen": self.seen})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> StandInHub:
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"
