"""Replies: the rows of the calls that ended, joined into one message for each request.

The coordinator and the worker add rows one by one; `Node.drain` flushes them. Rows that are too long together go in
several messages; a row that is too long by itself becomes an error. The last reply of a request that wants one message
is shortened until it fits: fewer rows of the trace, shorter errors, 1014 in place of the results. So each request gets
a reply, or its link ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

import msgspec

from mpreg_proto.effects import Effect, Notify
from mpreg_proto.errors import Fault
from mpreg_proto.ids import LinkId, RequestId
from mpreg_proto.links import Links
from mpreg_proto.notices import RequestFinished
from mpreg_proto.requests.actions import LOCAL
from mpreg_proto.sending import MINIMAL_TEXT, SENT, SHORT_TEXT, LinkGone, SendOutcome, Sent, TooLong, shorten_fault
from mpreg_proto.wire.messages import Done, Failed, Result

_Row = Done | Failed
_Key = tuple[LinkId, int]
_UNTRACED = 9
"""The most bytes of the number of omitted rows."""


class _Rows:
    """The calls of one request that ended since the last flush."""

    __slots__ = ("last", "rows")

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self.last = False


class Replies:
    """The rows by link and request. LOCAL is the process itself, which gets its replies as notices."""

    def __init__(self, links: Links, log: list[Effect]) -> None:
        self._links = links
        self._log = log
        self._rows: dict[_Key, _Rows] = {}
        self._by_link: dict[LinkId, dict[int, None]] = {}
        """The requests in `_rows`, by link."""
        self._unsendable: dict[LinkId, dict[int, Fault]] = {}
        """The requests with a result that was too long to send, and its fault, for the last reply."""

    def add(self, link: LinkId, request: int, row: Done | Failed, *, last: bool) -> None:
        """Add the row of an ended call; `last`: it is the last of its request."""
        rows = self._rows.get((link, request))
        if rows is None:
            rows = self._rows[link, request] = _Rows()
            self._by_link.setdefault(link, {})[request] = None
        rows.rows.append(row)
        rows.last = last

    def finish(self, link: LinkId, result: Result, *, started: bool) -> None:
        """Send the last reply of a request, together with its rows that are still here if they fit.

        `started`: a call that is not idempotent may have started, for the error that replaces a reply that is too long.
        """
        if self._rows and (rows := self._pop_rows(link, result.id)) is not None:
            self._send_in_parts(link, result.id, rows.rows, result=result, started=started)
        elif self._unsendable:
            self._send_final(link, result, started=started)
        else:
            self._send_shortened(link, result, started=started)

    def flush(self, queue: int) -> None:
        """Send all rows; `queue` is the number of calls that wait at this node."""
        if self._rows:
            rows, self._rows = self._rows, {}
            self._by_link.clear()
            for (link, request), one in rows.items():
                self._send_rows(link, request, one.rows, last=one.last, queue=queue)
                if one.last:
                    self._close_request(link, request)

    def forward(self, link: LinkId, result: Result) -> None:
        """Relay a reply of another node, under its local number, in several messages if needed."""
        outcome = self._put_result(link, result)
        match outcome:
            case Sent() | LinkGone():
                return
            case TooLong():
                pass
            case _:
                assert_never(outcome)
        rows: tuple[_Row, ...] = (*result.done, *result.failed)
        bare = msgspec.structs.replace(result, done=(), failed=())
        if rows:
            self._send_rows(link, result.id, rows, last=False, queue=result.queue)
        if result.last or not rows:
            self._send_final(link, bare, started=True)  # its coordinator knows better

    def refuse(self, link: LinkId, result: Result) -> None:
        """Answer a request that was refused; rows of another one with the same number stay."""
        self._send_shortened(link, result, started=False)

    def forget(self, link: LinkId) -> None:
        """Drop the rows of a closed link."""
        self._unsendable.pop(link, None)
        for request in self._by_link.pop(link, ()):
            del self._rows[link, request]

    def busy_on(self, link: LinkId) -> bool:
        """Return whether rows are still to be sent over `link`."""
        return link in self._by_link

    # -- rows, of which several messages may be made ------------------------------------------------------------------

    def _send_in_parts(
        self, link: LinkId, request: int, rows: Sequence[_Row], *, result: Result, started: bool
    ) -> None:
        """Send the last rows of a request and its last reply in one message, else the rows first."""
        if request not in self._unsendable.get(link, ()):
            outcome = self._put_result(link, _with_rows(result, rows))
            match outcome:
                case Sent() | LinkGone():
                    return
                case TooLong():
                    pass
                case _:
                    assert_never(outcome)
        self._send_rows(link, request, rows, last=False, queue=0)
        self._send_final(link, result, started=started)

    def _send_rows(self, link: LinkId, request: int, rows: Sequence[_Row], *, last: bool, queue: int) -> None:
        """Send all rows in as few messages as possible; `last` goes with the last message."""
        bare = Result(request, last=False, queue=queue)
        parts = list(self._parts(link, rows))
        for place, part in enumerate(parts, 1):
            self._send_part(link, part, msgspec.structs.replace(bare, last=last and place == len(parts)))

    def _parts(self, link: LinkId, rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
        """Group rows by the length of their values: encoding all at once would need the memory twice."""
        if len(rows) == 1 or link == LOCAL:
            yield rows
            return
        most, begin, total = self._links.limit(link), 0, 0
        for place, row in enumerate(rows):
            size = len(row.value) if isinstance(row, Done) else len(row.fault.message)
            if place > begin and total + size > most:
                yield rows[begin:place]
                begin, total = place, 0
            total += size
        yield rows[begin:]

    def _send_part(self, link: LinkId, rows: Sequence[_Row], bare: Result) -> None:
        """Send rows in one message, else each half by itself, down to single rows."""
        outcome = self._put_result(link, _with_rows(bare, rows))
        match outcome:
            case Sent() | LinkGone():
                return
            case TooLong():
                pass
            case _:
                assert_never(outcome)
        if len(rows) > 1:
            middle = len(rows) // 2
            self._send_part(link, rows[:middle], msgspec.structs.replace(bare, last=False))
            self._send_part(link, rows[middle:], bare)
            return
        row = self._row_too_long(link, rows[0], bare.id, outcome)
        fault = row.fault if bare.last else None
        self._send_or_end(link, msgspec.structs.replace(bare, failed=(row,), fault=fault))

    def _row_too_long(self, link: LinkId, row: _Row, request: int, outcome: TooLong) -> Failed:
        """Return the error that replaces a row that is longer than a message."""
        if isinstance(row, Failed):
            return msgspec.structs.replace(row, fault=shorten_fault(row.fault))
        fault = outcome.fault(maybe_executed=True).with_details(call=row.name)
        self._unsendable.setdefault(link, {}).setdefault(request, fault)
        return Failed(row.name, fault, waited=row.waited, ran=row.ran)

    # -- the last answer, which is one message ------------------------------------------------------------------------

    def _send_final(self, link: LinkId, result: Result, *, started: bool) -> None:
        """Send the last reply of a request. It is an error if a result could not be sent."""
        unsendable = self._close_request(link, result.id)
        if unsendable is not None and result.fault is None:
            result = msgspec.structs.replace(result, fault=unsendable.with_details(maybe_executed=started))
        self._send_shortened(link, result, started=started)

    def _send_shortened(self, link: LinkId, result: Result, *, started: bool) -> None:
        """Send the longest form of a last reply that fits; end the link if none fits."""
        outcome = self._put_result(link, result)
        for form in _SHORTER_FORMS:
            match outcome:
                case Sent() | LinkGone():
                    return
                case TooLong():
                    shorter = form(result, outcome, started)
                    if shorter is not None:
                        outcome = self._put_result(link, shorter)
                case _:
                    assert_never(outcome)
        if isinstance(outcome, TooLong):
            self._links.close_too_long(link, result, outcome)

    def _close_request(self, link: LinkId, request: int) -> Fault | None:
        """Forget an ended request. Returns the fault of a result that could not be sent, or None."""
        faults = self._unsendable.get(link)
        if faults is None:
            return None
        fault = faults.pop(request, None)
        if not faults:
            del self._unsendable[link]
        return fault

    def _pop_rows(self, link: LinkId, request: int) -> _Rows | None:
        rows = self._rows.pop((link, request), None)
        if rows is not None:
            requests = self._by_link[link]
            del requests[request]
            if not requests:
                del self._by_link[link]
        return rows

    def _put_result(self, link: LinkId, result: Result) -> SendOutcome:
        if link == LOCAL:
            self._log.append(Notify(RequestFinished(RequestId(result.id), result)))
            return SENT
        return self._links.send(link, result)

    def _send_or_end(self, link: LinkId, result: Result) -> None:
        """Send a message that cannot be shortened; end its link if it is too long."""
        outcome = self._put_result(link, result)
        match outcome:
            case Sent() | LinkGone():
                pass
            case TooLong():
                self._links.close_too_long(link, result, outcome)
            case _:
                assert_never(outcome)


def _with_rows(result: Result, rows: Sequence[_Row]) -> Result:
    """Return a result with more rows before its own."""
    done = tuple([row for row in rows if isinstance(row, Done)])
    failed = tuple([row for row in rows if isinstance(row, Failed)])
    return msgspec.structs.replace(result, done=(*done, *result.done), failed=(*failed, *result.failed))


def _trim_trace(result: Result, outcome: TooLong, started: bool) -> Result | None:
    """Omit as many rows of the trace as needed, and count them; None if that is not enough."""
    rows, excess = list(result.trace), outcome.size - outcome.limit + _UNTRACED
    while rows and excess > 0:
        row = rows.pop()
        excess -= len(row.name) + len(row.node) + len(row.why)  # it takes more than this
    if excess > 0:
        return None
    return msgspec.structs.replace(result, trace=tuple(rows), untraced=len(result.trace) - len(rows))


def _short_errors(result: Result, outcome: TooLong, started: bool, most: int = SHORT_TEXT) -> Result | None:
    """Keep all results and errors, with short error texts."""
    if result.fault is None and not result.failed:
        return None
    fault = None if result.fault is None else shorten_fault(result.fault, most)
    return _without_trace(msgspec.structs.replace(result, failed=_shorten_rows(result.failed, most), fault=fault))


def _minimal_errors(result: Result, outcome: TooLong, started: bool) -> Result | None:
    return _short_errors(result, outcome, started, MINIMAL_TEXT)


def _without_results(result: Result, outcome: TooLong, started: bool) -> Result | None:
    """Replace each result by 1014."""
    fault = outcome.fault(maybe_executed=started)
    if result.fault is None:
        return _without_trace(msgspec.structs.replace(result, done=(), failed=(), fault=fault))
    failed = (*_shorten_rows(result.failed, MINIMAL_TEXT), *[Failed(row.name, fault) for row in result.done])
    return _without_trace(msgspec.structs.replace(result, done=(), failed=failed, fault=fault))


def _shorten_rows(rows: Sequence[Failed], most: int) -> tuple[Failed, ...]:
    return tuple([msgspec.structs.replace(row, fault=shorten_fault(row.fault, most)) for row in rows])


def _limit_error_only(result: Result, outcome: TooLong, started: bool) -> Result | None:
    """Keep 1014 alone."""
    return Result(result.id, fault=outcome.fault(maybe_executed=started))


def _without_trace(result: Result) -> Result:
    return msgspec.structs.replace(result, trace=(), untraced=len(result.trace))


_SHORTER_FORMS = (_trim_trace, _short_errors, _minimal_errors, _without_results, _limit_error_only)
"""The forms of a last reply that is too long, each shorter than the one before; None if a form changes nothing."""
