"""`mogle app`: the web demo."""

from __future__ import annotations

from typing import Annotated

from typer import Option, Typer, echo

EXAMPLE = "Example: mogle app --port 8080"


def register(app: Typer) -> None:
    """Adds the command to the command line."""
    app.command("app", epilog=EXAMPLE)(serve_app)


def serve_app(
    tier: Annotated[str | None, Option(help="As for `mogle generate`: the largest that fits, or this one.")] = None,
    base: Annotated[str | None, Option(help="As for `mogle generate`.")] = None,
    adapter: Annotated[str | None, Option(help="As for `mogle generate`.")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda, cuda:1, mps, ... (the best there is).")] = None,
    dtype: Annotated[str | None, Option(help="As for `mogle generate`.")] = None,
    offload: Annotated[str, Option(help="As for `mogle generate`.")] = "none",
    parser: Annotated[
        str, Option(help="Who makes masks of photos: portraits (painted ones), segformer or farl (real ones).")
    ] = "portraits",
    host: Annotated[str, Option(help="Address to listen on; others than this machine reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int | None, Option(min=1, max=65535, help="Port (the first free one from 7860 on).")] = None,
    share: Annotated[bool, Option("--share", help="A public address for a week, through gradio's servers.")] = False,
    auth: Annotated[
        str | None,
        Option(
            metavar="USER:PASSWORD",
            envvar="MOGLE_APP_AUTH",
            help="Who may use it. In the variable it stays out of the shell's history.",
        ),
    ] = None,
    queue_size: Annotated[int, Option(min=1, help="Requests that may wait; more are told that it is full.")] = 32,
) -> None:
    """Serve the web demo: draw a mask or open one, write a sentence, see the face; with an API for programs.

    Its weights are chosen as by `mogle generate`. Where text encoders have no room beside the rest (T4), each sentence
    that is new loads them again, which takes longer than drawing.

    Only this machine reaches it unless --host or --share says otherwise. What is uploaded and drawn lies in a temporary
    folder for two hours at most, and goes with the demo.
    """
    from mogle.demo.server import Serving, serve

    def say(line: str) -> None:
        echo(line, err=line.startswith("note: "))

    serving = Serving(host, port, share, auth, queue_size)
    weights = {"tier": tier, "base": base, "adapter": adapter, "device": device, "dtype": dtype, "offload": offload}
    serve(say, serving, parser=parser, **weights)
