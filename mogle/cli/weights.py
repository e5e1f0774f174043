"""`mogle weights`, and what `mogle data` has in common with it: the assets of the ledger, listed and fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(no_args_is_help=True, help="Fetch weights of others, and see which there are.")


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    add_assets(group, "weights", "face-mogle")
    app.add_typer(group, name="weights")


def add_assets(group: typer.Typer, kind: str, example: str) -> None:
    """Adds `list` and `get` for the ledger's entries of one kind to a group."""

    @group.command("list", epilog=f"Example: mogle {kind} list && mogle {kind} get {example}")
    def list_assets() -> None:
        """What can be fetched: name, licence, where it goes, and what needs it. Nothing is fetched."""
        from mogle.assets.ledger import ledger

        for asset in [asset for asset in ledger().values() if asset.kind == kind]:
            needs = f"tiers {', '.join(asset.tiers)}; notebooks {', '.join(asset.notebooks)}"
            typer.echo(f"{asset.name:16} {asset.title}\n{'':16} {asset.source} -> {asset.to}\n{'':16} {needs}")

    @group.command("get", epilog=f"Example: mogle {kind} get {example}")
    def get_asset(
        name: Annotated[str, typer.Argument(help="A name that `list` shows.")],
        source: Annotated[
            Path | None, typer.Option("--from", help="A zip, file or folder to take it from, without the network.")
        ] = None,
        to: Annotated[Path | None, typer.Option(help="Folder to put it in (the reference's own).")] = None,
    ) -> None:
        """Fetch one, verify it and put it where the reference's layout has it. An interrupted download goes on."""
        from mogle.assets.fetch import get
        from mogle.assets.ledger import find

        asset = find(name, kind)
        terms = {"yes": "its licence must be accepted on its page, by the account of your token", "no": "open to all"}
        typer.echo(f"{asset.title} from {source or asset.source} -> {to or asset.to}", err=True)
        typer.echo(f"licence: {asset.licence or 'not verified'} {asset.licence_url}".rstrip(), err=True)
        typer.echo(f"access: {terms.get(asset.gated, 'not verified; you may have to log in first')}", err=True)
        typer.echo(f"not verified by this project: {', '.join(asset.unverified) or 'nothing'}", err=True)
        typer.echo(f"{asset.name} is in {get(asset, source, to)}")
