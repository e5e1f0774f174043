"""What stands between the network and the page: what may be asked, how much may be sent, what may be loaded.

Gradio brings more than this demo needs. What fetches addresses for others or runs other programs is closed here, and
the page is told to load nothing from any other host.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from html import escape
from typing import Any

import gradio as gr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mogle.errors import MogleError

MAX_JSON = 8 * 2**20  # bytes of a request: the largest mask that the painter knows takes 5.6 million
MAX_UPLOAD = 32 * 2**20

#: Parts of gradio's own that are not for this demo.
CLOSED = re.compile(r"^/gradio_api/(proxy=|file=\w+:|vibe|undo-vibe|process_recording|deep_link|run-history|stream/)")

_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # gradio's templates are compiled in the browser
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
_ELSEWHERE = re.compile(r"<(?:meta|link)\b[^>]*=\s*[\"']https?://[^>]*>\s*", re.IGNORECASE)
_NO_FIT = "the request does not fit what is asked for here; /gradio_api/info shows what does"


class Refused(Exception):
    """A request that goes no further: status and a line that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def scrubbed(page: str) -> str:
    """An HTML page without tags that name other hosts."""
    return _ELSEWHERE.sub("", page)


def check_json(body: bytes) -> None:
    """Refuses a body that is no JSON, or in which a file lies at an address that the server would have to fetch.

    Raises:
        Refused: with the status of the answer.
    """
    try:
        waiting: list[Any] = [json.loads(body)] if body else []
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"found no JSON in the request ({type(error).__name__})") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str) and re.match(r"\s*\w[\w+.-]*:/", path):
                raise Refused(400, "found a file at an address, expected one that was uploaded here")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


class Guard:
    """ASGI middleware around gradio's app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answer = _Answer(send)
        try:
            if CLOSED.match(scope["path"]):
                raise Refused(403, "this is not open here")
            if scope["method"] == "POST":
                receive = await self._bounded(scope, receive)
            await self.app(scope, receive, answer)
        except Refused as refused:
            await answer.refuse(refused.status, refused.why)
        except Exception as error:  # of gradio: an endpoint or a component that there is not
            print(f"mogle app: {scope['path']}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            await answer.refuse(400, _NO_FIT)

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body, at most so large; JSON is read at once and looked through."""
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        kind = headers.get("content-type", b"").lower()
        limit, size = (MAX_UPLOAD if kind.startswith(b"multipart/") else MAX_JSON), 0
        too_large = Refused(413, f"found more than {limit // 2**20} MiB in one request, expected less")
        length = headers.get("content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            raise too_large

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise too_large
            return message

        if kind.startswith((b"multipart/", b"application/x-www-form-urlencoded")):  # uploads, and who logs in
            return counted
        body, more = b"", True
        while more:
            message = await counted()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        check_json(body)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay


class _Answer:
    """Sends on what gradio answers, with our headers; HTML without what leads elsewhere."""

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False
        self.held: tuple[Message, list[bytes]] | None = None  # the start of an HTML page, and its parts

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = self._headers(message.get("headers", []))
            if dict(message["headers"]).get(b"content-type", b"").startswith(b"text/html"):
                self.held = message, []
                return
        elif self.held is not None:
            start, parts = self.held
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            self.held, body = None, scrubbed(b"".join(parts).decode()).encode()
            rest = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            await self.send({**start, "headers": [*rest, (b"content-length", str(len(body)).encode())]})
            message = {"type": "http.response.body", "body": body}
        self.started = True
        await self.send(message)

    async def refuse(self, status: int, why: str) -> None:
        """Answers instead of gradio; where it has begun to, ends the answer."""
        if self.started:
            return await self.send({"type": "http.response.body", "body": b""})
        self.held, body = None, json.dumps({"detail": why, "error": why}).encode()
        headers = self._headers([(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())])
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        return [(name, value) for name, value in headers if name.decode("latin-1").lower() not in HEADERS] + ours


class Blocks(gr.Blocks):
    """A page whose every failure is a message that its user can act on, and that names no other host."""

    def get_config_file(self) -> Any:
        """As in gradio, without its examples of inputs, which lie elsewhere."""
        config = super().get_config_file()
        for component in config["components"]:
            component.pop("example_inputs", None)
        return config

    async def process_api(self, block_fn: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in gradio, but what it raises is a `gr.Error`."""
        try:
            return await super().process_api(block_fn, *args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            message = str(error) if isinstance(error, MogleError) else _explained(error)
            if getattr(block_fn, "api_visibility", "") == "private":  # the page shows it as HTML, a program as it is
                message = escape(message, quote=False)
            raise gr.Error(message, print_exception=False) from error


def _explained(error: Exception) -> str:
    """What is said of a failure that nobody has foreseen; the log has more where it is ours."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(name.startswith("mogle.") and name != __name__ for name in modules):
        return _NO_FIT  # gradio could not make arguments of what was sent
    traceback.print_exception(error)
    return "something went wrong in the demo; its log says more"
