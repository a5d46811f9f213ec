"""The entry point of `python -m mpreg_transports.cli`, which is the same as `mpreg`."""

from mpreg_transports.cli import main

main()
