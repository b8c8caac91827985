"""`python -m opscore` is the command `opscore`."""

from opscore.cli import main

main()
