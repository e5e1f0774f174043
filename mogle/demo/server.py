"""`mogle app`: loads the model once, serves the page until it is told to stop, leaves nothing behind."""

from __future__ import annotations

import ipaddress
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from mogle.errors import MogleError

OLDEST = (6, 7)  # below it gradio lets a request read files of the server and call addresses from it
EXAMPLES = (22, 3, 8, 12, 17, 25)  # of the portraits


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
    }


def load_studio(base: str | None, adapter: str | None, device: str | None) -> Any:
    """The pipeline of a base and an adapter, as `mogle generate` loads it, in its studio."""
    from mogle.checkpoints import adapter_folder, base_folder, load_pipeline, origin_of
    from mogle.demo.studio import Studio

    base_found, adapter_found = base_folder(base), adapter_folder(adapter)
    pipe = load_pipeline(base_found, adapter_found, device)
    return Studio(pipe, origin_of(pipe, base_found, adapter_found))


def load_examples() -> list[Any]:
    """Some of the shipped portraits' masks with their first captions; none where they are not there."""
    from mogle.checkpoints import BASE, shipped
    from mogle.datasets import FaceDataset
    from mogle.demo.snippets import Example

    folder = shipped(BASE).parents[1] / "data" / "portraits"
    if not folder.is_dir():
        return []
    samples = FaceDataset(folder, split=None)
    places = [samples.ids.index(str(number)) for number in EXAMPLES]
    return [Example(samples.label_map(place), samples.captions(place)[0]) for place in places]


def launch(
    studio: Any, folder: Path, *, host: str, port: int | None, share: bool = False, auth: tuple[str, str] | None = None,
    queue_size: int = 32,
) -> tuple[Any, str, str | None]:  # fmt: skip
    """Serves the page from `folder` and returns (page, address, public address or None).

    Raises:
        MogleError: the port is taken, or the host is none of this machine's.
    """
    os.environ.update(environment(folder))  # before gradio is imported: it looks once
    from starlette.middleware import Middleware
    from starlette.responses import FileResponse
    from starlette.routing import Route

    from mogle.demo.guard import MAX_UPLOAD, Guard
    from mogle.demo.layout import build, static, style, theme
    from mogle.demo.shelf import Shelf

    page = build(studio, Shelf(folder), load_examples())
    page.queue(max_size=queue_size, api_open=False, default_concurrency_limit=4)

    def served(path: Path) -> Callable[[Any], FileResponse]:
        return lambda _request: FileResponse(path, headers={"cache-control": "no-cache"})

    routes = [Route(address, served(path)) for address, path in static().items()]
    try:
        _, address, public = page.launch(
            server_name=host, server_port=port, share=share, auth=auth, prevent_thread_lock=True, quiet=True,
            inbrowser=False, show_error=False, allowed_paths=[], max_file_size=MAX_UPLOAD // 2, max_threads=16,
            footer_links=["api", "settings"], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
            mcp_server=False, state_session_capacity=200, theme=theme(), css=style(),
            app_kwargs={"middleware": [Middleware(Guard)], "routes": routes},
        )  # fmt: skip
    except OSError as error:
        raise MogleError(f"--host {host} --port {port or '7860 to 7959'}: {error}; choose another") from error
    return page, address, public


def serve(
    say: Callable[[str], None], *, base: str | None, adapter: str | None, device: str | None, host: str, port: int | None,
    share: bool, auth: str | None, queue_size: int,
) -> None:  # fmt: skip
    """Loads, serves, and waits for Ctrl-C or SIGTERM; see `mogle.cli.demo`.

    Raises:
        MogleError: what was asked for cannot be done, before anything heavy is loaded where it can be known.
    """
    check_gradio()
    pair, ended = read_auth(auth), threading.Event()
    if pair is None and (share or not is_loopback(host)):
        say("note: everybody who reaches the address can use this machine; --auth USER:PASSWORD asks them who they are")
    studio = load_studio(base, adapter, device)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="mogle-app-", ignore_cleanup_errors=True) as folder:
        page, address, public = launch(
            studio, Path(folder), host=host, port=port, share=share, auth=pair, queue_size=queue_size
        )
        try:
            say(f"serving on {address}" + (f" and {public}" if public else "") + "; Ctrl-C ends it")
            ended.wait()
        finally:
            page.close(verbose=False)
            studio.close()
