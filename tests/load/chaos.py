"""`make chaos`: replicas are killed and stopped, AgentKit lies, and nothing may get lost.

python -m tests.load.chaos --storage sqlite --seconds 600 --seed 7
"""

import argparse
import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.compiled_code import compiled_code_kept
from tests.load.chaos_checker import violations
from tests.load.chaos_plan import BRISK, STEADY
from tests.load.chaos_record import Record, load_record
from tests.load.chaos_run import ChaosRun, Figures, Options

_SHOWN = 50
_REPLICAS = {"sqlite": 1, "postgres": 3}
_BRISK_BELOW = 60.0


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    if given.check is not None:
        return _judge(violations(load_record(given.check)), f"--check {given.check}")
    # Careless agents lose reports all the time; that is what they are for.
    logging.getLogger("opscore.simulators").setLevel(logging.CRITICAL)
    seed = given.seed if given.seed is not None else secrets.randbelow(1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="opscore-chaos-"))
    options = Options(
        storage=given.storage,
        seed=seed,
        seconds=given.seconds,
        replicas=given.replicas or _REPLICAS[given.storage],
        folder=folder,
        mode=given.mode,
        rate=given.rate,
        tempo=BRISK if given.seconds < _BRISK_BELOW else STEADY,
    )
    replay = (
        f"--storage {given.storage} --seconds {given.seconds:g} --seed {seed} "
        f"--replicas {options.replicas} --mode {given.mode} --rate {given.rate:g}"
    )
    print(f"make chaos ARGS='{replay}'; what it leaves is in {folder}", file=sys.stderr)
    run = ChaosRun(options)
    started = time.monotonic()
    with compiled_code_kept():
        record = asyncio.run(run.run())
    record.save(folder / "record.json")
    found = violations(record)
    print(table(options, record, run.figures, found, time.monotonic() - started))
    if not found:
        shutil.rmtree(folder)
    return _judge(found, replay)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--storage", choices=sorted(_REPLICAS), default="sqlite")
    parser.add_argument("--seconds", type=float, default=60, help="how long the blows go on")
    parser.add_argument("--seed", type=int, help="the plan of an earlier run")
    parser.add_argument("--replicas", type=int, help="1 on SQLite, 3 on PostgreSQL if unset")
    parser.add_argument("--mode", choices=("agentkit", "auto", "direct"), default="agentkit")
    parser.add_argument("--rate", type=float, default=5, help="sessions started a second")
    parser.add_argument("--check", type=Path, help="look again at the record of an earlier run")
    return parser


def _judge(found: list[str], replay: str) -> int:
    for sentence in found[:_SHOWN]:
        print(sentence)
    if found:
        print(f"{len(found)} violations. Again: make chaos ARGS='{replay}'")
    return 1 if found else 0


def table(
    options: Options, record: Record, figures: Figures, found: list[str], lasted: float
) -> str:
    statuses = [session["status"] for session in record.sessions]
    ended = ", ".join(f"{status} {statuses.count(status)}" for status in sorted(set(statuses)))
    silent = sum(count for answer, count in record.answers.items() if not answer.isdigit())
    rows = {
        "seed": options.seed,
        "blows, settling and all": f"{options.seconds:g} s, {lasted:.0f} s in all",
        "replicas": options.replicas,
        "kills of replicas": figures.blows["kill"],
        "SIGSTOP and SIGCONT": figures.blows["stop"],
        "kills of the database": figures.blows["database"],
        "sessions started": len(record.sessions),
        "how they ended": ended,
        "tasks": len(record.tasks),
        "messages to AgentKit": len(record.posts),
        "answered wrongly": sum(figures.faults.values()),
        "requests without an answer, or with 503": silent + record.answers.get("503", 0),
        "events": len(record.events),
        "settled after": f"{figures.settled_after:.1f} s",
        "lost": sum("lost" in sentence for sentence in found),
        "double completions": sum("was completed" in sentence for sentence in found),
        "violations in all": len(found),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join((f"| {options.storage} | |", "| --- | --- |", *lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
