"""The context (contextvars) in which users' functions run: that of the server's start, copied for each call.

So a call sees the values that were set before the server began, and no value that another call has set. The driver
holds one `Contexts`; each execution mode takes its copy here.
"""

from __future__ import annotations

import decimal
from contextvars import Context, ContextVar, copy_context

_library: ContextVar[str | None] | None
try:
    from sniffio import current_async_library_cvar as _library
except ImportError:  # anyio works without it
    _library = None


class Contexts:
    """A source of copies of the context that was current at its creation."""

    __slots__ = ("_base", "_decimal", "_threads")

    def __init__(self) -> None:
        self._base = copy_context()
        self._threads = copy_context()
        if _library is not None:
            self._threads.run(_library.set, None)  # a thread may run an event loop of its own
        # Copies of a context share its values, and a decimal context is changed in place.
        self._decimal = any(isinstance(value, decimal.Context) for value in self._base.values())

    def fresh(self) -> Context:
        """Return a context for one call in the event loop."""
        return self._own(self._base.copy())

    def for_thread(self) -> Context:
        """Return a context for one call in a thread."""
        return self._own(self._threads.copy())

    def _own(self, context: Context) -> Context:
        if self._decimal:
            context.run(_copy_decimal)
        return context


def _copy_decimal() -> None:
    decimal.setcontext(decimal.getcontext().copy())
