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
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
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


def scrubbed(page: str) -> str:
    """An HTML page without tags that name other hosts."""
    return _ELSEWHERE.sub("", page)


def check_json(body: bytes) -> None:
    """Refuses a body that is no JSON, or in which a file lies at an address that the server would have to fetch.

    Raises:
        HTTPException: with the status of the answer.
    """
    try:
        waiting: list[Any] = [json.loads(body)] if body else []
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"found no JSON in the request ({type(error).__name__})") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str) and re.match(r"\s*\w[\w+.-]*:/", path):
                raise HTTPException(400, "found a file at an address, expected one that was uploaded here")
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
                raise HTTPException(403, "this is not open here")
            if scope["method"] == "POST":
                receive = await _bounded(scope, receive)
            return await self.app(scope, receive, answer)
        except HTTPException as refused:
            status, why = refused.status_code, refused.detail
        except Exception as error:  # of gradio: an endpoint or a component that there is not
            print(f"mogle app: {scope['path']}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            status, why = 400, _NO_FIT
        if answer.started:  # then gradio's answer ends here
            return await send({"type": "http.response.body", "body": b""})
        await JSONResponse({"detail": why, "error": why}, status)(scope, receive, _Answer(send))


async def _bounded(scope: Scope, receive: Receive) -> Receive:
    """The request's body, at most so large; JSON is read at once and looked through."""
    headers = Headers(scope=scope)
    kind, length = headers.get("content-type", "").lower(), headers.get("content-length", "0")
    limit, size = (MAX_UPLOAD if kind.startswith("multipart/") else MAX_JSON), 0
    too_large = HTTPException(413, f"found more than {limit // 2**20} MiB in one request, expected less")
    if not length.isdecimal() or int(length) > limit:
        raise too_large

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise too_large
        return message

    if kind.startswith(("multipart/", "application/x-www-form-urlencoded")):  # uploads, and who logs in
        return counted
    body = await Request(scope, counted).body()
    check_json(body)
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Answer:
    """Sends on what gradio answers, with our headers; HTML without what leads elsewhere."""

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False
        self.page: Message | None = None  # the start of an HTML page, held until all of it is there
        self.html = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if headers.get("content-type", "").startswith("text/html"):
                self.page = message
                return
        elif self.page is not None:
            self.html += message.get("body", b"")
            if message.get("more_body", False):
                return
            start, self.page, body = self.page, None, scrubbed(self.html.decode()).encode()
            MutableHeaders(scope=start)["content-length"] = str(len(body))
            await self.send(start)
            message = {"type": "http.response.body", "body": body}
        self.started = True
        await self.send(message)


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
