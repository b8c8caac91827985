"""The command `opscore`."""

import gc
import signal
import sys


def main() -> None:
    # What is loaded here stays; that the collector looks through it costs a tenth of the start.
    gc.disable()
    # While modules load there is nothing to end in order, and a traceback would say nothing.
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:] == ["serve"]:
        # The way containers start it. Without switches there is nothing to parse, and loading
        # the parser would be another tenth.
        from opscore.cli.service import run_service  # noqa: PLC0415 - see above

        sys.exit(run_service(None, None))
    from opscore.cli.parser import app  # noqa: PLC0415 - see above

    gc.enable()
    signal.signal(signal.SIGINT, interrupted)
    app()
