"""Ends connections whose clients never read."""

import array
import asyncio
import fcntl
import termios

_LOOKS = 6


class WriteWatch:
    """Aborts the connection when the client takes nothing of what is written for `timeout` seconds.

    Runs only while the transport's write buffer holds something. It looks several times within
    the timeout; progress is any decrease between two looks.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, timeout: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._interval = timeout / _LOOKS
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._looks_without_progress = 0

    def start(self) -> None:
        if self._timer is None:
            self._looks_without_progress = 0
            self._unsent = _unsent_bytes(self._transport)
            self._timer = self._loop.call_later(self._interval, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._transport.get_write_buffer_size():
            return
        unsent = _unsent_bytes(self._transport)
        stuck = unsent >= self._unsent
        self._looks_without_progress = self._looks_without_progress + 1 if stuck else 0
        self._unsent = unsent
        if self._looks_without_progress >= _LOOKS:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._interval, self._look)


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the client's machine has not acknowledged, those in the kernel included.

    The kernel frees its buffer in large steps, so that ours alone would show a slow client as one
    that stands still.
    """
    unsent = array.array("i", [0])
    try:
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, unsent)
    except OSError:
        # Not every system counts this for sockets.
        unsent[0] = 0
    return transport.get_write_buffer_size() + unsent[0]
