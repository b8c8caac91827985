"""The commands and their switches. What a command needs is imported when it runs."""

import typer

from opscore.cli.commands import demo, serve, version
from opscore.cli.simulate import simulate
from opscore.cli.storage import storage

app = typer.Typer(
    name="opscore",
    help="Ops-Core: the operations core for AI agents.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(demo)
app.command()(version)
app.add_typer(simulate, name="simulate")
app.add_typer(storage, name="storage")
