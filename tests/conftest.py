"""What every test gets: both event loops, and hypothesis made repeatable.

Asynchronous tests say `@pytest.mark.anyio` and then run twice, once on asyncio and once on trio, because the adapters
promise both. Nothing here starts a process, opens a port or sleeps.
"""

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


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The name of the event loop that an `anyio` test runs on."""
    backend: str = request.param
    return backend
