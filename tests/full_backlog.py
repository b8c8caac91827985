"""A port on loopback that drops packets, as a host behind a firewall does, until it is opened."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_MANY = 8


@dataclass
class FullBacklog:
    """The queue of the port is full: the kernel drops what asks for another connection."""

    listening: socket.socket
    waiting: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def fill(self) -> None:
        self.waiting = [socket.socket() for _ in range(_MANY)]
        for one in self.waiting:
            one.setblocking(False)
            one.connect_ex(self.listening.getsockname())

    def open(self) -> None:
        """Make room: who goes on asking is connected from now on."""
        for one in self.waiting:
            one.close()
        self.listening.setblocking(False)
        while True:
            try:
                self.listening.accept()[0].close()
            except BlockingIOError:
                return


@contextmanager
def full_backlog() -> Iterator[FullBacklog]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        backlog = FullBacklog(listening)
        backlog.fill()
        yield backlog
        for one in backlog.waiting:
            one.close()
