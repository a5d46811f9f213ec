"""The command `python -m mpreg_transports.testing.explore`: every order of events of two or three nodes."""

from mpreg_transports.testing.explore.explorer import main

raise SystemExit(main())
