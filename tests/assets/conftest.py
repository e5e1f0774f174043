"""A server on this machine that plays the Hub, or a plain address, and can cut connections off or lie."""

import hashlib
import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mogle.assets import ledger

COMMIT = "c0ffee" * 6 + "c0ff"


class Server:
    """files: {path at the source: bytes}; `cuts` connections are cut off at random points, from a seed."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.wrong: dict[str, bytes] = {}  # what is sent instead of what is promised
        self.cuts, self.requests, self.refuse, self.tags = 0, [], 0, True
        self.random = random.Random(0)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_) -> None:
                pass

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_GET(self) -> None:
                server.answer(self, body=True)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def sibling(self, name: str) -> dict:
        data = self.files[name]
        sha = hashlib.sha256(data).hexdigest()
        lfs = {"sha256": sha, "oid": sha, "size": len(data), "pointerSize": 130}
        return {"rfilename": name, "path": name, "type": "file", "size": len(data), "oid": sha[:40], "lfs": lfs}

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append((handler.command, handler.path, dict(handler.headers)))
        if self.refuse:
            return self.send(handler, self.refuse, {}, b"", body)
        if path.startswith("/api/"):
            siblings = [self.sibling(name) for name in self.files]
            found = siblings if "/tree/" in path else {"id": "owner/name", "sha": COMMIT, "siblings": siblings}
            return self.send(handler, 200, {"Content-Type": "application/json"}, json.dumps(found).encode(), body)
        name = re.sub(r"^.*/resolve/[^/]+/|^/", "", path)
        if name not in self.files:
            return self.send(handler, 404, {"X-Error-Code": "EntryNotFound"}, b"", body)
        data, etag = self.wrong.get(name, self.files[name]), self.sibling(name)["lfs"]["sha256"]
        headers, status = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, 200
        if self.tags:
            headers["ETag"] = f'"{etag}"'
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and handler.headers.get("If-Range", headers.get("ETag")) == headers.get("ETag"):
            start, status = int(asked[1]), 206
            if start >= len(data):
                return self.send(handler, 416, headers, b"", body)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        self.send(handler, status, headers, data, body, cut=body)

    def send(self, handler, status, headers, data, body, cut=False) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if cut and self.cuts:
            self.cuts -= 1
            data = data[: self.random.randint(0, min(len(data) - 1, 3000))]
            handler.close_connection = True
        if body:
            handler.wfile.write(data)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The server, as the Hub's mirror; a lock file and caches of its own; no pauses."""
    from huggingface_hub import constants

    made = Server()
    monkeypatch.setattr(constants, "ENDPOINT", made.url)  # what HF_ENDPOINT sets when a process starts
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("MOGLE_ASSETS_LOCK", str(tmp_path / "lock" / "assets.json"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach anything is recorded and refused."""
    import socket

    tried: list[object] = []

    def refuse(*args, **_):
        tried.append(args)
        raise OSError("the network is off in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.fixture
def offline(monkeypatch):
    """As with HF_HUB_OFFLINE=1, which is read when a process starts; call it to begin."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def asset():
    """An entry as in the ledger: `asset(files=(...), ...)`."""

    def make(*names: str, **fields: object) -> ledger.Asset:
        files = [{"names": name.split("|"), "size": 0, "sha256": ""} for name in names]
        empty = dict.fromkeys(("url", "revision", "licence", "licence_url", "gated"), "")
        lists = dict.fromkeys(("holds", "tiers", "notebooks", "unverified"), ())
        known = {"name": "thing", "kind": "weights", "title": "A thing", "hub": "owner/name", "to": "runs/thing"}
        return ledger.Asset(**{**empty, **lists, **known, "files": files, **fields})

    return make
