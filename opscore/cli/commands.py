"""`opscore serve`, `opscore demo` and `opscore version`."""

from pathlib import Path
from typing import Annotated

import typer

from opscore import __version__


def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on, instead of OPSCORE_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port, instead of OPSCORE_PORT; 0: a free one."),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option("--import", help="Begin with this export; the storage must be empty."),
    ] = None,
) -> None:
    """Start the service with the settings of the environment and of .env."""
    from opscore.cli.service import run_service  # noqa: PLC0415 - loaded on use, see the package

    raise typer.Exit(run_service(host, port, imported))


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when the workflow has ended.")] = False,
    storage: Annotated[
        str,
        typer.Option(
            metavar="memory|sqlite|postgres|URL",
            help="Where the service keeps everything.",
        ),
    ] = "memory",
) -> None:
    """Show a whole workflow on simulated agents, live. Ctrl-C ends everything it started."""
    from opscore.cli.demo import run_demo  # noqa: PLC0415 - loaded on use, see the package

    raise typer.Exit(run_demo(once=once, storage=storage))


def version() -> None:
    """Print the version."""
    print_version(True)


def print_version(wanted: bool) -> None:
    """Print the version and end, if it is wanted."""
    if wanted:
        typer.echo(f"opscore {__version__}")
        raise typer.Exit
