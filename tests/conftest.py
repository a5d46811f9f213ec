"""What every test gets: both event loops, and hypothesis made repeatable.

Asynchronous tests say `@pytest.mark.anyio` and then run twice, once on asyncio and once on trio, because the adapters
promise both. With `--loop uvloop` they run once, on uvloop, and so does every other event loop of asyncio's that a test
makes. `uv run pytest` runs the tests in two processes a core, tests of files that are named in one (pytest-xdist).
Nothing here starts a process, opens a port or sleeps.
"""

import asyncio
import os
import signal

import pytest
from hypothesis import settings

# A failure must be the same on every machine, so examples come from the test itself and not from a draw or a database;
# time is no verdict on a shared machine. `--hypothesis-profile=explore` draws new ones, and prints how to repeat each.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "explore", derandomize=False, deadline=None, database=None, print_blob=True, max_examples=2000
)
settings.load_profile("repeatable")


# A shell starts a job in the background with SIGINT ignored, `nohup` with SIGHUP ignored, and children inherit that. A
# handler ends with exec, so the processes that tests start have the defaults; this one goes on ignoring SIGHUP.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--loop`."""
    parser.addoption("--loop", choices=["default", "uvloop"], default="default", help="what asyncio makes")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: two a core, as most tests of processes and sockets wait.

    None for one file or one test: starting them would take longer.
    """
    named = [one for one in config.args if ".py" in one]
    return 0 if named else 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Let child processes keep bytecode; make uvloop the loop of asyncio's policy, which every way of running one asks.

    Hundreds of processes import the packages. Where PYTHONDONTWRITEBYTECODE is set, each would compile them again.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.rootpath / ".pytest_cache" / "bytecode"))
    if config.getoption("loop") == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Another loop of asyncio's changes nothing on trio."""
    if config.getoption("loop") != "default":
        items[:] = [one for one in items if _backend(one) != "trio"]


def _backend(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("anyio_backend")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The name of the event loop that an `anyio` test runs on."""
    backend: str = request.param
    return backend
