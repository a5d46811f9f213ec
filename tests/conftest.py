"""Settings of every test: both event loops, and hypothesis made repeatable.

Asynchronous tests have `@pytest.mark.anyio` and run twice, once on asyncio and once on trio, because the adapters
support both. With `--loop uvloop` they run once, on uvloop, as does every other asyncio event loop that a test makes.
`uv run pytest` runs the tests in two processes per core. If test files are named, their tests run in one process
(pytest-xdist). This file starts no process, opens no port and does not sleep.
"""

import asyncio
import os
import signal

import pytest
from hypothesis import settings

# A failure must be the same on every machine, so examples come from the test itself and not from a draw or a database.
# There is no deadline, because a shared machine has no fixed speed. `--hypothesis-profile=explore` draws new examples,
# and prints how to repeat each.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "explore", derandomize=False, deadline=None, database=None, print_blob=True, max_examples=2000
)
settings.load_profile("repeatable")


# A shell starts a background job with SIGINT ignored, `nohup` with SIGHUP ignored, and children inherit that. exec
# resets a handler, so the processes that tests start have the defaults; this process continues to ignore SIGHUP.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--loop`."""
    parser.addoption("--loop", choices=["default", "uvloop"], default="default", help="what asyncio makes")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers of `-n auto`: two per core, because most tests of processes and sockets wait.

    0 for one file or one test: to start workers would take longer.
    """
    named = [one for one in config.args if ".py" in one]
    return 0 if named else 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Let child processes keep bytecode, and set uvloop in asyncio's policy, which every way to run a loop uses.

    Hundreds of processes import the packages. With PYTHONDONTWRITEBYTECODE set, each would compile them again.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.rootpath / ".pytest_cache" / "bytecode"))
    if config.getoption("loop") == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remove the tests on trio with another asyncio loop, which does not change them."""
    if config.getoption("loop") != "default":
        items[:] = [one for one in items if _backend(one) != "trio"]


def _backend(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("anyio_backend")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Return the name of the event loop that an `anyio` test runs on."""
    backend: str = request.param
    return backend
