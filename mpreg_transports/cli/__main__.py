"""`python -m mpreg_transports.cli` is `mpreg`."""

from mpreg_transports.cli import main

main()
