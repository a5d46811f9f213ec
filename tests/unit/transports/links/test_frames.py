"""WebSocket frames at the lengths where their form changes, read by wsproto."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from wsproto import ConnectionType, events
from wsproto.connection import Connection

from mpreg_transports.links import frames
from mpreg_transports.links.base import Buffer
from mpreg_transports.links.frames import BINARY, FRAGMENT, TEXT, WHOLE

EDGES = (0, 1, 125, 126, 127, 0xFFFF, 0x10000, 0x10001, WHOLE, WHOLE + 1, WHOLE + FRAGMENT, WHOLE + FRAGMENT + 1)

Writer = Callable[[Iterable[tuple[int, Buffer]]], Iterator[tuple[Buffer, Buffer]]]


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize(
    ("write", "reads"), [(frames.plain_frames, ConnectionType.CLIENT), (frames.masked_frames, ConnectionType.SERVER)]
)
def test_messages_of_the_lengths_where_frames_change(length: int, write: Writer, reads: ConnectionType) -> None:
    """Two messages, so that the first one's end is known from the second one's beginning."""
    sent = [(BINARY, bytes(range(256)) * (length // 256) + b"x" * (length % 256)), (TEXT, b"y" * length)]
    reader = Connection(reads)
    for head, payload in write(sent):
        assert len(payload) <= WHOLE
        reader.receive_data(bytes(head) + bytes(payload))
    got: list[bytes] = [b""]
    for event in reader.events():
        assert isinstance(event, (events.BytesMessage, events.TextMessage))
        got[-1] += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        if event.message_finished:
            got.append(b"")
    assert got == [*(payload for _, payload in sent), b""]
