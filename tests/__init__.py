"""The tests: a package, so that `python -m tests.helpers.ws_echo` works. tests/unit/ mirrors the two packages."""
