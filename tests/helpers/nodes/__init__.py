"""Programs that are nodes, for tests with real processes. Each is run with `python -m`."""
