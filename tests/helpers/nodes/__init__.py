"""Programs that are nodes, for tests with real processes. Run each with `python -m`."""
