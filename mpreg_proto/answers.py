"""Answers on their way out: what ended in one wake-up goes back in one message a request.

The coordinator's and the worker's rows come in one by one; `Node.drain` flushes them. What is too long together goes
one by one; an answer that is longer than its link takes becomes an error that says so, for each call that it was about.
"""

from __future__ import annotations

import msgspec

from mpreg_proto.effects import Effect, Notify
from mpreg_proto.errors import over_limit
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.links import Links
from mpreg_proto.notices import Answered
from mpreg_proto.requests.intents import LOCAL
from mpreg_proto.wire.messages import Done, Failed, Result


class _Rows:
    """Calls of one request that ended since the last flush."""

    __slots__ = ("done", "failed", "last")

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.failed: list[Failed] = []
        self.last = False


class Answers:
    """Rows by link and request. LOCAL is the process itself, which gets its answers as notices."""

    def __init__(self, links: Links, log: list[Effect]) -> None:
        self._links = links
        self._log = log
        self._rows: dict[tuple[LinkId, int], _Rows] = {}

    def add(self, link: LinkId, request: int, row: Done | Failed, *, last: bool) -> None:
        """One call has ended; `last`: and nothing more comes of its request."""
        rows = self._rows.get((link, request))
        if rows is None:
            rows = self._rows[link, request] = _Rows()
        if isinstance(row, Done):
            rows.done.append(row)
        else:
            rows.failed.append(row)
        rows.last = last

    def finish(self, link: LinkId, result: Result) -> None:
        """Send a request's last answer, what is still here of it going along."""
        rows = self._rows.pop((link, result.id), None)
        if rows is not None:
            done, failed = (*rows.done, *result.done), (*rows.failed, *result.failed)
            joined = msgspec.structs.replace(result, done=done, failed=failed)
            if self._put(link, joined) is None:
                return
            self._send_each(link, result.id, rows, queue=0)
        self._send(link, result)

    def flush(self, queue: int) -> None:
        """Send all that is here; `queue` is how many calls wait at this node."""
        if self._rows:
            rows, self._rows = self._rows, {}
            for (link, request), one in rows.items():
                joined = Result(request, tuple(one.done), tuple(one.failed), one.last, queue=queue)
                if self._put(link, joined) is None:
                    continue
                self._send_each(link, request, one, queue=queue)

    def forget(self, link: LinkId) -> None:
        """There is nobody to send to any more."""
        for key in [key for key in self._rows if key[0] == link]:
            del self._rows[key]

    def pending(self, link: LinkId) -> bool:
        """Whether something is still to be sent over `link`."""
        return any(key[0] == link for key in self._rows)

    def _send_each(self, link: LinkId, request: int, rows: _Rows, *, queue: int) -> None:
        """The rows one by one, `last` with the last of them."""
        results = [Result(request, done=(row,), last=False, queue=queue) for row in rows.done]
        results += [Result(request, failed=(row,), last=False, queue=queue) for row in rows.failed]
        results[-1] = msgspec.structs.replace(results[-1], last=rows.last)
        for result in results:
            self._send(link, result)

    def _put(self, link: LinkId, result: Result) -> int | None:
        """Returns None, or, for a message longer than the link takes, its length: then nothing was sent."""
        if link == LOCAL:
            self._log.append(Notify(Answered(RequestId(result.id), result)))
            return None
        return self._links.send(link, result)

    def _send(self, link: LinkId, result: Result) -> None:
        size = self._put(link, result)
        if size is None:
            return
        fault = over_limit("message", self._links.limit(link), size).saying(maybe_executed=True)
        failed = tuple(Failed(row.name, fault) for row in result.done)
        if result.last and result.fault is None:
            failed = ()
        self._links.send(link, msgspec.structs.replace(result, done=(), failed=(*result.failed, *failed), fault=fault))
