"""The lock beside a database file: who holds it, and what becomes of its file."""

import fcntl
from pathlib import Path

import pytest

from opscore.exceptions import ConfigurationError
from opscore.storage.file_lock import FileLock


def held(path: Path) -> FileLock:
    lock = FileLock(path)
    lock.acquire()
    return lock


def test_second_lock_is_refused_and_leaves_the_file_of_the_first(tmp_path: Path) -> None:
    first = held(tmp_path / "x.db")
    second = FileLock(tmp_path / "x.db")
    with pytest.raises(ConfigurationError, match="another process uses"):
        second.acquire()
    second.release()
    assert (tmp_path / "x.db.lock").exists()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_lock_file_that_was_there_before_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "x.db.lock"
    file.write_text("of another program")
    file.chmod(0o640)
    held(tmp_path / "x.db").release()
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("of another program", 0o640)


def test_lock_file_is_private(tmp_path: Path) -> None:
    lock = held(tmp_path / "x.db")
    assert (tmp_path / "x.db.lock").stat().st_mode & 0o777 == 0o600
    lock.release()


def test_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends between this lock's open and its flock."""
    holder = held(tmp_path / "x.db")
    flock = fcntl.flock

    def end_of_the_holder(descriptor: int, operation: int) -> None:
        holder.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", end_of_the_holder)
    late = held(tmp_path / "x.db")
    monkeypatch.undo()
    with pytest.raises(ConfigurationError):
        held(tmp_path / "x.db")
    late.release()


def test_lock_in_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="folder that exists"):
        held(tmp_path / "missing" / "x.db")
