"""The port that engines implement."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from opscore.exceptions import StorageError
from opscore.storage.sql.program import Dialect, Program

R = TypeVar("R")


class CommitUnknownError(StorageError):
    """The connection broke during the commit: it may have taken place or not."""


class Run(Protocol):
    """Runs programs one after the other, all within one transaction."""

    async def __call__(self, program: Program[R]) -> R: ...


class Driver(ABC):
    """Runs programs, each as one transaction; what fails with the engine is StorageError."""

    dialect: Dialect

    @abstractmethod
    async def open(self) -> None:
        """Connect and bring the schema up to date."""

    @abstractmethod
    async def close(self) -> None:
        """Give every connection back."""

    def on_hint(self, wake: Callable[[], None]) -> None:  # noqa: B027 - where there is one process
        """Have `wake` called for the hints of other processes."""

    def hint(self) -> None:  # noqa: B027 - where there is one process, nobody is to be told
        """Tell other processes that a task may have become ready."""

    @abstractmethod
    async def read(self, program: Program[R]) -> R:
        """Run a program of one statement that reads few rows by their keys."""

    @abstractmethod
    async def scan(self, program: Program[R]) -> R:
        """Run a program that may look through many rows, and sees all of them at one moment."""

    @abstractmethod
    async def write(
        self, make: Callable[[], Program[R]], urgent: bool = False, long: bool = False
    ) -> R:
        """Run a program and commit; when it raises, nothing of it remains.

        It is made anew when it has to be run again. An `urgent` one need not wait for the rest,
        and a `long` one, which touches many rows, must not make the rest wait.
        Raises CommitUnknownError when nobody can say whether the commit took place.
        """

    @abstractmethod
    def transaction(
        self, writing: bool, any_schema: bool = False
    ) -> AbstractAsyncContextManager[Run]:
        """One transaction on a connection of its own, however long it takes.

        Everything read is of one moment; what is written remains only if nothing is raised. To
        read, the driver need not be open. Raises ConfigurationError when the schema is not
        today's, unless any will do.
        """
