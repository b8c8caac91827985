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
    """`at` and `lasts` are seconds."""

    at: float
    kind: Kind
    replica: int = 0
    lasts: float = 0


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


def plan(
    seed: int, seconds: float, replicas: int, database: bool, tempo: Tempo = STEADY
) -> tuple[Blow, ...]:
    """All blows within the given time, the earliest first."""
    blows = [
        *_series(seed, Kind.KILL, seconds, tempo.kill, (0, 0), replicas),
        *_series(seed, Kind.STOP, seconds, tempo.stop, tempo.stopped, replicas),
    ]
    if database:
        blows += _series(seed, Kind.DATABASE, seconds, tempo.database, tempo.down, 1)
    return tuple(sorted(blows, key=lambda blow: blow.at))


def _series(
    seed: int, kind: Kind, seconds: float, between: Span, lasts: Span, replicas: int
) -> list[Blow]:
    # Each kind draws from its own numbers: another tempo of one does not move the others.
    draw = random.Random(f"{seed} {kind}")
    blows: list[Blow] = []
    at = draw.uniform(*between)
    while at < seconds:
        long = draw.uniform(*lasts)
        blows.append(Blow(at, kind, draw.randrange(replicas), long))
        # What was stopped or killed works again before its next blow falls due.
        at += long + draw.uniform(*between)
    return blows
