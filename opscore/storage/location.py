"""Where a storage URL leads, in words that hold no password."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

SQLITE = "sqlite:///"


def is_in_memory(url: str) -> bool:
    return url == "memory:"


def location(url: str) -> str:
    """The kind and the place of a database that could be opened, without the password."""
    if url.startswith(SQLITE):
        return f"SQLite {sqlite_file(url)}"
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    user = f"{unquote(account.partition(':')[0])}@" if account else ""
    return f"PostgreSQL {user}{hosts or 'local socket'}{parts.path}"


def sqlite_file(url: str) -> Path:
    return Path(url.removeprefix(SQLITE)).absolute()
