"""The errors between processes, beside the errors of the protocol (mpreg_proto.errors)."""

from __future__ import annotations

from typing import Any

from mpreg_proto.errors import MpregError


class CannotImport(MpregError, ValueError):
    """Functions that the processes of a node (`processes=`) cannot import. The text gives the reasons and the fix."""


class NotConnected(MpregError, ConnectionError):
    """No node could be reached. `details["tried"]` maps each address to the reason."""

    code: int | None = None
    safe_to_repeat = True

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details if details is not None else {}
