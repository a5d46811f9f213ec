"""WebSocket messages out of bytes: the limit is that of one message, of text and of bytes."""

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.frame_protocol import CloseReason

from mpreg_transports.links import frames
from mpreg_transports.links.frames import BINARY, TEXT
from mpreg_transports.links.message_parser import MessageParser


def parsed(parser: MessageParser, opcode: int, payload: bytes) -> list[bytes | bytearray | str]:
    """Return the messages that one message's frames complete."""
    for head, part in frames.masked_frames([(opcode, payload)]):
        parser.feed(bytes(head) + bytes(part))
    return parser.parse()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_limit_of_each_message(opcode: int) -> None:
    """Many messages of just the limit pass; one byte more ends the link."""
    parser = MessageParser(Connection(ConnectionType.SERVER), max_message=100)
    for _ in range(5):
        assert len(parsed(parser, opcode, b"x" * 100)[0]) == 100
    assert parser.end is None
    assert not parsed(parser, opcode, b"x" * 101)
    assert parser.end is not None
    assert parser.violation_code == CloseReason.MESSAGE_TOO_BIG


def test_limit_counts_bytes_of_text() -> None:
    parser = MessageParser(Connection(ConnectionType.SERVER), max_message=100)
    assert parsed(parser, TEXT, "é".encode() * 50) == ["é" * 50]
    assert not parsed(parser, TEXT, "é".encode() * 51)
