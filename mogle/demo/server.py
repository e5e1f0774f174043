"""`mogle app`: loads the model once, serves the page until it is told to stop, leaves nothing behind."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import tempfile
import threading
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from mogle.errors import MogleError

OLDEST = (6, 7)  # below it gradio lets a request read files of the server and call addresses from it
#: Portraits whose masks are shown to begin with, and what is asked of them.
EXAMPLES: dict[str, str] = tomllib.loads(Path(__file__).with_name("examples.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Serving:
    """Where the page is served, and to whom; `auth` is USER:PASSWORD."""

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth: str | None = field(default=None, repr=False)
    queue_size: int = 32


def check_gradio() -> None:
    """Refuses a gradio that is missing or too old to be safe.

    Raises:
        MogleError: with the command that mends it.
    """
    mend = "pip install -U 'gradio>=6.7'"
    try:
        found = metadata.version("gradio")
    except metadata.PackageNotFoundError as error:
        raise MogleError(f"gradio is not installed, and the demo needs it: {mend}") from error
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise MogleError(f"gradio {found}: in it a request can read files of this machine; {mend}")


def read_auth(auth: str | None) -> tuple[str, str] | None:
    """USER:PASSWORD as a pair.

    Raises:
        MogleError: not of that form; what was found is not repeated.
    """
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise MogleError("--auth: expected USER:PASSWORD, neither of them empty")
    return user, password


def check_address(host: str, port: int | None) -> None:
    """Refuses a host that is none of this machine's, and a port that is taken.

    Raises:
        MogleError: with what the system says.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        raise MogleError(
            f"--host {host} --port {port or 'any'}: cannot be listened on ({error}); choose another"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def environment(folder: Path) -> dict[str, str]:
    """What gradio reads from the environment: where it writes, and that it reports to nobody."""
    return {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_MAX_EVENTS": "100",  # it keeps the last events, and counts them anew after each
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "agg",  # gradio asks matplotlib for it at each request, which would look through all fonts
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }


def load_studio(
    parser: str, *, tier: str | None = None, base: str | None = None, adapter: str | None = None,
    device: str | None = None, dtype: str | None = None, offload: str = "none",
) -> Any:  # fmt: skip
    """The pipeline, chosen and loaded as by `mogle generate`, and a face parser, in their studio."""
    from mogle.checkpoints import chosen_weights, load_chosen, origin_of
    from mogle.demo.studio import Studio
    from mogle.parsing import load_parser

    held, base_found, adapter_found = chosen_weights(tier, base, adapter)
    photos = load_parser(parser, device=device)  # first: it says soonest what is missing
    likely = ["", *EXAMPLES.values()]  # "" for a mask alone
    pipe = load_chosen(held, base_found, adapter_found, device, dtype, offload, likely)
    return Studio(pipe, origin_of(pipe, base_found, adapter_found), photos)


def load_examples() -> list[Any]:
    """Some of the shipped portraits' masks, each with a sentence; none where they are not there."""
    from mogle.checkpoints import BASE, shipped
    from mogle.demo.snippets import Example
    from mogle.labels import decode_mask

    folder = shipped(BASE).parents[1] / "data" / "portraits" / "mask"
    files = {folder / f"{name}.png": prompt for name, prompt in EXAMPLES.items()}
    return [Example(decode_mask(path), prompt) for path, prompt in files.items() if path.is_file()]


def launch(studio: Any, folder: Path, serving: Serving) -> tuple[Any, str, str | None]:
    """Serves the page, which writes to `folder` alone, and returns (page, address, public address or None).

    Raises:
        MogleError: no port is free.
    """
    os.environ.update(environment(folder))  # before gradio is imported: it looks once
    from starlette.middleware import Middleware
    from starlette.responses import FileResponse
    from starlette.routing import Route

    from mogle.demo.guard import MAX_UPLOAD, Guard
    from mogle.demo.layout import build, style, theme
    from mogle.demo.shelf import Shelf
    from mogle.painter import SCRIPT

    def painter(_request: Any) -> FileResponse:
        return FileResponse(SCRIPT, headers={"cache-control": "no-cache"})

    page = build(studio, Shelf(folder), load_examples())
    page.queue(max_size=serving.queue_size, api_open=False, default_concurrency_limit=4)
    try:
        _, address, public = page.launch(
            server_name=serving.host,
            server_port=serving.port,
            share=serving.share,
            auth=read_auth(serving.auth),
            app_kwargs={"middleware": [Middleware(Guard)], "routes": [Route("/mogle/painter.js", painter)]},
            allowed_paths=[],
            max_file_size=MAX_UPLOAD // 2,
            max_threads=16,
            state_session_capacity=200,
            theme=theme(),
            css=style(),
            footer_links=["api"],
            prevent_thread_lock=True,
            quiet=True,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
    except OSError as error:
        raise MogleError(f"--port {serving.port or '7860 to 7959'}: {error}") from error
    return page, address, public


def serve(say: Callable[[str], None], serving: Serving, **weights: Any) -> None:
    """Loads `weights` (see `load_studio`), serves, and waits for Ctrl-C or SIGTERM; `say` is told the address.

    Raises:
        MogleError: what was asked for cannot be done, before anything heavy is loaded where it can be known.
    """
    check_gradio()
    check_address(serving.host, serving.port)
    ended = threading.Event()
    if read_auth(serving.auth) is None and (serving.share or not is_loopback(serving.host)):
        say("note: everybody who reaches the address can use this machine; --auth USER:PASSWORD asks them who they are")
    studio = load_studio(**weights)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="mogle-app-", ignore_cleanup_errors=True) as folder:
        page, address, public = launch(studio, Path(folder), serving)
        try:
            if serving.share and not public:
                say("note: gradio's servers gave no public address; only the local one works")
            say(f"serving on {address}" + (f" and {public}" if public else "") + "; Ctrl-C ends it")
            ended.wait()
        finally:
            page.close(verbose=False)
            studio.close()
