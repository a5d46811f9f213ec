"""A guard that lets no server run while the module of a TARGET is imported: the import would not end before the server.

`mpreg serve` and similar commands import within `importing`; `Server.run` and `serve` first call
`refuse_while_importing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_targets: list[str] = []


class ServedWhileImported(RuntimeError):
    """A module runs its server at its top level, and is imported in order to run that server."""


@contextmanager
def importing(target: str) -> Iterator[None]:
    """Let `refuse_while_importing` raise within this block."""
    _targets.append(target)
    try:
        yield
    finally:
        _targets.pop()


def refuse_while_importing() -> None:
    """Raise ServedWhileImported, with the fix, if a TARGET is being imported."""
    if _targets:
        raise ServedWhileImported(
            f'{_targets[-1]} runs its server while it is imported; write `if __name__ == "__main__":` above that '
            "line, so that only `python FILE` runs it"
        )
