"""`opscore storage …`: their switches."""

from typing import Annotated, Any

import typer

storage = typer.Typer(
    help="Look after the database: migrate, export, import, prune. Variables of .env count too.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _url(meaning: str) -> Any:
    return typer.Option(
        "--url",
        envvar="OPSCORE_STORAGE_URL",
        show_envvar=True,
        show_default=False,
        help=meaning,
    )


Url = Annotated[
    str, _url("The database: sqlite:///path or postgresql://user:password@host/database.")
]
Source = Annotated[
    str, _url("The database, or the address of a running service, whose key is OPSCORE_API_KEY.")
]
MEMORY = "memory:"


@storage.callback()
def read_env_file() -> None:
    from opscore.cli.environment import use_env_file  # noqa: PLC0415 - loaded on use

    use_env_file()


@storage.command()
def migrate(url: Url = MEMORY) -> None:
    """Bring the database up to date, and make it if there is none."""
    from opscore.cli.storage_runs import run_migrate  # noqa: PLC0415 - loaded on use

    raise typer.Exit(run_migrate(url))


@storage.command()
def status(url: Url = MEMORY) -> None:
    """Show what is there. A service may run meanwhile."""
    from opscore.cli.storage_runs import run_status  # noqa: PLC0415 - loaded on use

    raise typer.Exit(run_status(url))


@storage.command("export")
def export_(
    file: Annotated[str, typer.Argument(help="The file to write; - for the standard output.")],
    url: Source = MEMORY,
) -> None:
    """Write everything as lines of JSON, as of one moment. A service may run meanwhile."""
    from opscore.cli.storage_runs import run_export  # noqa: PLC0415 - loaded on use

    raise typer.Exit(run_export(url, file))


@storage.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="An export; - for the standard input.")],
    url: Url = MEMORY,
) -> None:
    """Take an export into an empty storage, all of it or nothing, and check it afterwards."""
    from opscore.cli.storage_runs import run_import  # noqa: PLC0415 - loaded on use

    raise typer.Exit(run_import(url, file))


@storage.command()
def prune(
    url: Url = MEMORY,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be forgotten.")
    ] = False,
) -> None:
    """Forget what has ended and is too old or too much by the settings OPSCORE_RETENTION_…."""
    from opscore.cli.storage_runs import run_prune  # noqa: PLC0415 - loaded on use

    raise typer.Exit(run_prune(url, dry_run=dry_run))
