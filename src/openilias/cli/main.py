"""The command and its groups; nothing heavy is imported until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from openilias import __version__
from openilias.cli import (
    adaptation,
    ames,
    build,
    compare,
    data,
    evaluation,
    extraction,
    local,
    models,
    paper,
    reranking,
    runs,
    searching,
    sweeping,
)
from openilias.core.errors import OpenIliasError

app = typer.Typer(
    name="ilias",
    help="Instance-level image retrieval at scale: describe images, search, evaluate, explain.\n\nTry it: ilias demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"openilias {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


runs.register(app)
extraction.register(app)
searching.register(app)
reranking.register(app)
sweeping.register(app)
evaluation.register(app)
compare.register(app)
app.add_typer(models.app, name="models")
app.add_typer(adaptation.app, name="adapt")
app.add_typer(local.app, name="local")
app.add_typer(ames.app, name="ames")
app.add_typer(build.app, name="build")
app.add_typer(data.app, name="data")
app.add_typer(paper.app, name="paper")


def main() -> None:
    """Run the command; bad input ends with a message on standard error and exit code 2."""
    try:
        app()
    except OpenIliasError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except ValidationError as error:
        told = ((".".join(map(str, p["loc"])), p["msg"].removeprefix("Value error, ")) for p in error.errors())
        problems = (f"{name or 'value'}: {what}" for name, what in told)
        typer.echo("error: A value is out of range.\n    " + "\n    ".join(problems), err=True)
        raise SystemExit(2) from None
    except OSError as error:
        where = f"\n  where: {error.filename}" if error.filename else ""
        typer.echo(f"error: {error.strerror or error}{where}", err=True)
        raise SystemExit(2) from None
