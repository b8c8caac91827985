"""The blows of a chaos run, drawn from its seed. Pure: a seed gives the same plan each time."""

import random
from dataclasses import dataclass
from enum import StrEnum

Span = tuple[float, float]


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL for a replica, which is started again at once."""
    STOP = "stop"
    """SIGSTOP for a replica, and SIGCONT some time later."""
    DATABASE = "database"
    """SIGKILL for the whole database server, which is started again some time later."""


@dataclass(frozen=True, slots=True)
class Blow:
    """`after` is the time since the last blow of its kind was over; both are in seconds.

    After an `eager` kill the next one may fall into the victim's start.
    """

    after: float
    kind: Kind
    replica: int = 0
    lasts: float = 0
    eager: bool = False


@dataclass(frozen=True, slots=True)
class Tempo:
    """Seconds from one blow of a kind to the next, and how long its effect lasts."""

    kill: Span = (2, 10)
    stop: Span = (5, 25)
    stopped: Span = (0.5, 18)
    database: Span = (5, 40)
    down: Span = (0, 4)


STEADY = Tempo()
# For runs of less than a minute, which must see each kind of blow several times all the same.
BRISK = Tempo(kill=(2, 5), stop=(3, 7), stopped=(0.5, 3), database=(5, 9), down=(0, 1))

_EAGER_SHARE = 0.25


def plan(
    seed: int, seconds: float, replicas: int, database: bool, tempo: Tempo = STEADY
) -> tuple[tuple[Blow, ...], ...]:
    """For each kind the series of its blows, long enough for the given time."""
    kill = _series(seed, Kind.KILL, seconds, tempo.kill, (0, 0), replicas)
    stop = _series(seed, Kind.STOP, seconds, tempo.stop, tempo.stopped, replicas)
    if not database:
        return kill, stop
    return kill, stop, _series(seed, Kind.DATABASE, seconds, tempo.database, tempo.down, 1)


def _series(
    seed: int, kind: Kind, seconds: float, between: Span, lasts: Span, replicas: int
) -> tuple[Blow, ...]:
    # Each kind draws from its own numbers: another tempo of one does not move the others.
    draw = random.Random(f"{seed} {kind}")
    blows: list[Blow] = []
    at = 0.0
    while at < seconds:
        after, long = draw.uniform(*between), draw.uniform(*lasts)
        eager = kind is Kind.KILL and draw.random() < _EAGER_SHARE
        blows.append(Blow(after, kind, draw.randrange(replicas), long, eager))
        at += after + long
    return tuple(blows)
