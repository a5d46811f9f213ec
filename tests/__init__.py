"""The tests, a package so that `python -m tests.helpers.ws_echo` works; tests/ mirrors the two packages under unit/."""
