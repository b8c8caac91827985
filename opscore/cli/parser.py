"""The commands and their switches. What a command needs is imported when it runs."""

from typing import Annotated

import typer

from opscore.cli.commands import demo, print_version, serve, version
from opscore.cli.simulate import simulate
from opscore.cli.storage import storage

app = typer.Typer(
    name="opscore",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Ops-Core: the operations core for AI agents."""


app.command()(serve)
app.command()(demo)
app.command()(version)
app.add_typer(simulate, name="simulate")
app.add_typer(storage, name="storage")
