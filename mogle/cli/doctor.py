"""`mogle doctor`: what is missing on this machine, and the command that mends it."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command(epilog="Example: mogle doctor --tier t4")(doctor)


def doctor(
    tier: Annotated[str | None, typer.Option(help="tiny, t4, l4, a100 or h100 [the largest that fits].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Say what this machine has and lacks; exit code 1 where the tier needs something that is missing."""
    from mogle.doctor import as_text, examine

    chosen, rows = examine(tier)
    ok = all(row.state != "missing" for row in rows)
    told = {"ok": ok, "tier": chosen.name, "cost": chosen.cost(), "rows": [row._asdict() for row in rows]}
    typer.echo(json.dumps(told, indent=2) if as_json else as_text(chosen, rows))
    raise typer.Exit(0 if ok else 1)
