"""While the module of a TARGET is imported, no server of it may run: the import would not end before the server does.

`mpreg serve` and its like import within `importing`; `Server.run` and `serve` ask `refuse_while_importing` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_targets: list[str] = []


class ServedWhileImported(RuntimeError):
    """A module runs its server at its top level, and is imported for that server to be run."""


@contextmanager
def importing(target: str) -> Iterator[None]:
    """Meanwhile `refuse_while_importing` raises."""
    _targets.append(target)
    try:
        yield
    finally:
        _targets.pop()


def refuse_while_importing() -> None:
    """Raises ServedWhileImported, with the fix in words, if a TARGET is being imported."""
    if _targets:
        raise ServedWhileImported(
            f'{_targets[-1]} runs its server while it is imported; write `if __name__ == "__main__":` above that '
            "line, so that only `python FILE` runs it"
        )
