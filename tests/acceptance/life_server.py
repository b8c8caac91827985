"""Gives the service life after life, quickly: everything is loaded before, and then forked.

`python -m tests.acceptance.life_server` reads one order a line and answers with the process's
number, and with its exit status once it has ended. A life is `opscore serve` in every other
respect, save that what happens every few seconds happens here every few hundredths.
"""

import gc
import json
import os
import sys
import traceback
from datetime import timedelta
from functools import partial
from typing import Any

import anyio

import opscore.storage.postgres
import opscore.storage.sqlite  # noqa: F401 - both are loaded now instead of in every life
from opscore.api import core
from opscore.cli.service import run_service
from opscore.workflow import dispatcher
from opscore.workflow.housekeeper import Housekeeper
from opscore.workflow.retention import RetentionLoop

BROKEN = 70
LEASE = 0.6
TICK = 0.02


def hasten() -> None:
    dispatcher.LEASE = timedelta(seconds=LEASE)
    vars(core)["Housekeeper"] = partial(Housekeeper, tick=TICK)
    vars(core)["RetentionLoop"] = partial(RetentionLoop, interval=timedelta(seconds=TICK))


def serve_orders() -> None:
    hasten()
    anyio.run(anyio.sleep, 0)  # loads what the first request would load
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            live(order)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def say(number: int) -> None:
    print(number, flush=True)


def live(order: dict[str, Any]) -> None:
    """The service in this process, which ends with it."""
    status = BROKEN
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(log, standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["env"])
        status = run_service(None, None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve_orders()
