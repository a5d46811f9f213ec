"""What a forked child must not keep of its parent: the node's sockets, and the wire on which its signals arrive.

`executor=ProcessPoolExecutor()` forks workers out of a process that listens. A child that kept the listening socket
would block the port after the node's end, one that kept a link would hide that end from its peer, and a signal to a
child would reach the parent's event loop over the pair that both have. So each child closes what is ours, and takes
signals as any process does.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int: ...


_ours: WeakSet[HasFileno] = WeakSet()


def not_for_children(sock: HasFileno) -> None:
    """From now on a forked child closes its copy of `sock`; the parent's is not touched."""
    _ours.add(sock)


def _in_child() -> None:
    for sock in list(_ours):
        with suppress(OSError, ValueError):
            if (number := sock.fileno()) >= 0:
                os.close(number)
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
