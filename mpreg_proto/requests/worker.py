"""The worker: the calls that this node runs. It checks them, queues them for a slot, runs and answers them.

In: dispatches of coordinators (our own over LOCAL), outcomes of runs, cancellations. Out: `Run` and `Cancel` effects,
and a `CallFinished` for each call. Only here are arguments decoded and results encoded. A slot stays taken until the
run has really ended: cancelling is a message, not an end (dask/distributed #2617).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from mpreg_proto.describe import cut, exception_text, sendable
from mpreg_proto.effects import (
    FAILURE_SUMMARY,
    FAILURE_TEXT,
    Cancel,
    Demand,
    Feed,
    Lost,
    NotStarted,
    Outcome,
    Raised,
    Report,
    Returned,
    Run,
)
from mpreg_proto.errors import ErrorCode, Fault, LocalProtocolError, over_limit
from mpreg_proto.guard import shown
from mpreg_proto.ids import LinkId, RunId
from mpreg_proto.limits import DEFAULT, MILLISECOND, Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.actions import CallFinished, CreditReturned, RequestOutput, SendUpdate
from mpreg_proto.requests.backlog import POLL, Pace
from mpreg_proto.requests.fair_queue import Client, FairQueue
from mpreg_proto.timers import Key, TimerKind, Timers
from mpreg_proto.wire.decode import count
from mpreg_proto.wire.expansion import expand, is_whole_argument
from mpreg_proto.wire.messages import (
    Call,
    CallProgress,
    Done,
    Failed,
    InputItems,
    InputTaken,
    Items,
    ItemsParameter,
    ItemsTaken,
)
from mpreg_proto.wire.value_limits import MAX_ARRAY, ValueTooLarge
from mpreg_proto.wire.values import MalformedValue, MissingReference, PathNotFound, ValueCodec, join_items


class _Input:
    """The items that a call takes one by one, of the dependency `source`."""

    __slots__ = ("last", "source", "unused", "waiting")

    def __init__(self, source: str) -> None:
        self.source = source
        self.waiting: list[bytes] = []
        """The items that came before its body started."""
        self.unused = 0
        """The items that its function has not taken, with these."""
        self.last = False
        """True once no more come."""


class Job(msgspec.Struct, eq=False):
    """One call on this node, from its arrival until its body has ended."""

    link: LinkId
    request: int
    call: Call
    inputs: Mapping[str, bytes]
    deadline: int
    accepted: int
    started: int = 0
    run: RunId | None = None
    cancelled: Fault | None = None
    assumed_idempotent: bool = False
    """True if its coordinator takes it for idempotent."""
    memory: int = 0
    """The approximate bytes of memory of its inputs while it runs."""
    client: Client = (b"", 0)
    charged: int = 0
    """The time in ns that it counted as used at its turn in the queue; 0 if it has not waited there."""
    progress: bool = False
    """True if its coordinator wants its progress."""
    streamed: bool = False
    """True if its coordinator wants the items of its generator one by one."""
    input: _Input | None = None
    """The items that it takes one by one, if any."""


ITEM_WINDOW: Final = 16
"""The items of a generator that are on their way to its consumer; then it waits."""


class _Generated:
    """The items of one running generator."""

    __slots__ = ("collected", "count", "demand")

    def __init__(self) -> None:
        self.demand = ITEM_WINDOW
        """The items that it may still produce."""
        self.count = 0
        self.collected = bytearray()
        """The bytes of its items, unless they are sent one by one."""


_NO_INPUTS: Final[Mapping[str, str]] = {}
REPORT_EVERY: Final = 100 * MILLISECOND
"""The least time between two messages about the progress of one call, but for the last one, in ns."""


class Worker:
    """A queue and slots for each function. `concurrency` sets how many bodies of a function may run at once."""

    def __init__(
        self,
        refusal: Callable[[Call, bool], Fault | None],
        codec: ValueCodec,
        limits: Limits = DEFAULT,
        *,
        shown: Callable[[], str] = lambda: "",
        timers: Timers | None = None,
    ) -> None:
        self._shown = shown
        """Returns the name of this node for errors, which changes with its id."""
        self._refusal = refusal
        """Returns why this node cannot run a call now (1001, 1024), or None; True: it is taken for idempotent."""
        self._codec = codec
        self._limits = limits
        self._slots: dict[str, int] = {}
        self._queue_limits: dict[str, int] = {}
        self._waiters: dict[str, OrderedDict[LinkId, None]] = {}
        """The links over which calls of a function were refused for lack of a place, the longest wait first."""
        self._promised: dict[str, dict[LinkId, int]] = {}
        """The places that are kept for coordinators which were refused before, by function, and until when."""
        self._busy: dict[str, int] = {}
        self._queues: dict[str, FairQueue[Job]] = {}
        """The queued calls of each function that has any."""
        self.queued: int = 0
        """The number of calls that wait for a slot."""
        self._runs: dict[RunId, Job] = {}
        self._memory_used = 0
        """The memory of all running calls."""
        self._blocked: dict[str, None] = {}
        """The functions whose first queued call waits for memory, the longest wait first."""
        self._dispatches: dict[tuple[LinkId, int], dict[str, Job]] = {}
        self._by_link: dict[LinkId, dict[int, None]] = {}
        """The numbers of the dispatches of each link."""
        self._bounded = True
        self._paces: dict[str, Pace] = {}
        """The pace of each function whose calls were queued."""
        self._last_run = 0
        self._generators: dict[str, None] = {}
        """The functions that are generators."""
        self._consumers: dict[str, ItemsParameter] = {}
        """The functions that take items one by one, with the parameter."""
        self._generated: dict[RunId, _Generated] = {}
        self._timers = Timers() if timers is None else timers
        self._reports: dict[RunId, Report | None] = {}
        """The runs that sent their progress within `REPORT_EVERY`, each with the report that is to be sent then."""

    # -- inputs -------------------------------------------------------------------------------------------------------

    def concurrency(
        self,
        function: str,
        slots: int,
        now: int,
        *,
        queue: int = 0,
        generator: bool = False,
        consumes: ItemsParameter | None = None,
    ) -> list[RequestOutput]:
        """Run at most `slots` bodies of `function` at once from now on, and queue at most `queue` (0: `slots`) calls.

        `generator`: they produce items; `consumes`: the parameter by which they take items. Running and queued ones go
        on.
        """
        self._consumers.pop(function, None)
        if consumes is not None:
            self._consumers[function] = consumes
        if generator:
            self._generators[function] = None
        else:
            self._generators.pop(function, None)
        self._slots[function] = slots
        self._queue_limits[function] = queue or slots
        actions = self._next(function, now) if function in self._queues else []
        return actions + self._return_credit(now) if self._waiters else actions

    def take_all(self) -> None:
        """Queue calls without a bound from now on: this node leaves, and its own requests have no other place."""
        self._bounded = False

    def accept(
        self,
        link: LinkId,
        number: int,
        calls: Sequence[Call],
        inputs: Mapping[str, bytes],
        *,
        client: Client = (b"", 0),
        idempotent: Sequence[str] = (),
        progress: bool = False,
        streams: Sequence[str] = (),
        iterates: Mapping[str, str] = _NO_INPUTS,
        deadline: int,
        now: int,
    ) -> list[RequestOutput]:
        """Run or refuse each of `calls`, which are for `client`.

        The sender takes those named in `idempotent` for that. `progress`: it wants to know how far they are. `streams`:
        it wants the items of these one by one. `iterates`: these take the items of a dependency one by one, which come
        by `input_received`. Everything is checked again here, as its view may be old.
        """
        jobs = self._dispatches.setdefault((link, number), {})
        self._by_link.setdefault(link, {})[number] = None
        assumed = dict.fromkeys(idempotent)
        sizes = {name: _decoded_size(value) for name, value in inputs.items()}
        fresh: list[Job] = []
        for call in calls:
            job = Job(link, number, call, inputs, deadline=deadline, accepted=now)
            job.client = client
            job.assumed_idempotent = call.name in assumed
            job.progress = progress
            job.streamed = call.name in streams
            if iterates and call.name in iterates:
                job.input = _Input(iterates[call.name])
            job.memory = (
                sum([sizes[dependency] for dependency in call.dependencies if dependency in sizes]) if sizes else 0
            )
            jobs[call.name] = job
            fresh.append(job)
        actions: list[RequestOutput] = []
        for job in fresh:
            refusal = self._refusal(job.call, job.assumed_idempotent)
            if refusal is not None:
                actions.append(self._end(job, Failed(job.call.name, refusal, refused=True)))
                continue
            function = job.call.function
            promised = bool(self._promised) and self._bounded and self._use_promise(function, link, now)
            if not promised and not self._has_place(function, now):
                self._waiters.setdefault(function, OrderedDict()).setdefault(link, None)
                actions.append(self._end(job, Failed(job.call.name, faults.no_place(job.call, self._shown()), True)))
                continue
            if function not in self._queues and self._has_slot(function) and (not job.memory or self._has_memory(job)):
                actions.append(self._start(job, now))
            else:
                self._queue(job)
        return actions

    def finished(self, run: RunId, outcome: Outcome, now: int, *, began: int | None = None) -> list[RequestOutput]:
        """Handle the end of a body, which began at `began` (None: at its `Run`): answer, and start queued calls.

        Raises LocalProtocolError for a run that has ended or never began; nothing has changed then.
        """
        job = self._runs.pop(run, None)
        if job is None:
            raise LocalProtocolError(f"run {shown(run)} does not run: it has ended already, or was never returned")
        if began is not None:
            job.started = min(max(job.started, began), now)
        function = job.call.function
        self._busy[function] -= 1
        if not self._busy[function]:
            del self._busy[function]
        self._memory_used -= job.memory
        actions: list[RequestOutput] = self._last_report(run, job) if self._reports else []
        generated = self._generated.pop(run, None) if self._generated else None
        row = self._row(job, outcome, now) if generated is None else self._last_row(job, generated, outcome, now)
        actions.append(self._end(job, row))
        if self._queues:
            if (queue := self._queues.get(function)) is not None:
                ran = now - job.started
                self._paces.setdefault(function, Pace()).ran(ran, now, busy=False)
                queue.charge(job.client, ran - job.charged)
            actions += self._next(function, now)
        if self._blocked:
            actions += self._start_blocked(now)
        return actions + self._return_credit(now) if self._waiters else actions

    def yielded(self, run: RunId, items: Sequence[Any]) -> list[RequestOutput]:
        """Send the next items of a generator, or keep them for its result.

        Raises LocalProtocolError for a run that does not run or is no generator, and for more items than it may
        produce; nothing has changed then.
        """
        job, generated = self._require(run), self._generated.get(run)
        if generated is None:
            raise LocalProtocolError(f"run {run} is of {job.call.function!r}, which is no generator")
        if len(items) > generated.demand:
            raise LocalProtocolError(f"run {run} may produce {generated.demand} items now, not {len(items)}")
        generated.demand -= len(items)
        if job.cancelled is not None or not items:
            return []
        encoded: list[bytes] = []
        for item in items:
            generated.count += 1
            try:
                encoded.append(self._codec.encode(item))
            except BaseException as error:  # UnsendableValue, or what a user's object raises past the codec
                text = f"item {generated.count} cannot be sent: {exception_text(error)}"
                return self._stop(job, self._failure(job.call, Raised("UnsendableValue", text)))
        if job.streamed:
            return [SendUpdate(job.link, Items(job.request, job.call.name, tuple(encoded)))]
        return self._collect(job, run, generated, encoded)

    def _collect(self, job: Job, run: RunId, generated: _Generated, items: list[bytes]) -> list[RequestOutput]:
        """Keep items for the result, and let the generator go on unless the result is too long."""
        for item in items:
            generated.collected += item
        size, most = len(generated.collected), self._limits.node_message
        if size > most:
            return self._stop(job, over_limit("message", most, size).with_details(call=job.call.name))
        if generated.count > MAX_ARRAY:
            return self._stop(job, over_limit("array entries", MAX_ARRAY, generated.count))
        generated.demand += len(items)
        return [Demand(run, len(items))]

    def items_taken(self, link: LinkId, message: ItemsTaken) -> list[RequestOutput]:
        """Let a generator produce as many items as its consumer has used. More than were sent do not count."""
        job = self._dispatches.get((link, message.id), {}).get(message.call)
        generated = None if job is None or job.run is None else self._generated.get(job.run)
        if job is None or job.run is None or generated is None or not job.streamed or job.cancelled is not None:
            return []
        more = min(message.count, ITEM_WINDOW - generated.demand)
        if more <= 0:
            return []
        generated.demand += more
        return [Demand(job.run, more)]

    def input_received(self, link: LinkId, message: InputItems) -> list[RequestOutput]:
        """Pass items on to the body that takes them, or keep them until it starts.

        A call that gets more than it may is stopped.
        """
        job = self._dispatches.get((link, message.id), {}).get(message.call)
        if job is None or job.input is None or job.cancelled is not None:
            return []
        came, unused = job.input, job.input.unused + len(message.values)
        if came.last or unused > ITEM_WINDOW:
            return self._stop(job, _invalid(job.call, f"gets more items than the {ITEM_WINDOW} that it may have"))
        came.unused = unused
        came.waiting += message.values
        came.last = message.last
        return [] if job.run is None else self._feed(job, came)

    def took(self, run: RunId, items: int) -> list[RequestOutput]:
        """Let the generator of a call produce as many items as its function has taken.

        Raises LocalProtocolError for a run that does not run or takes no items, and for more items than it has;
        nothing has changed then.
        """
        job = self._require(run)
        if job.input is None:
            raise LocalProtocolError(f"run {run} is of {job.call.function!r}, which has no items to take")
        if not 0 <= items <= job.input.unused:
            raise LocalProtocolError(f"run {run} has {job.input.unused} items, and cannot take {items}")
        job.input.unused -= items
        if job.cancelled is not None or not items:
            return []
        return [SendUpdate(job.link, InputTaken(job.request, job.call.name, items))]

    def _feed(self, job: Job, came: _Input) -> list[RequestOutput]:
        """Give a running body the items that came for it."""
        assert job.run is not None
        encoded, came.waiting = came.waiting, []
        items: list[Any] = []
        for item in encoded:
            try:
                items.append(self._codec.decode(item))
            except BaseException as error:  # MalformedValue, or what a registered type raises past the codec
                return self._stop(job, _invalid(job.call, f"got an item that cannot be read: {exception_text(error)}"))
        return [Feed(job.run, items, came.last)] if items or came.last else []

    def item_too_long(self, link: LinkId, items: Items, fault: Fault) -> list[RequestOutput]:
        """Stop a generator with an item that is longer than a message may be."""
        job = self._dispatches.get((link, items.id), {}).get(items.call)
        return [] if job is None else self._stop(job, fault.with_details(call=items.call))

    def reported(self, run: RunId, report: Report, now: int) -> list[RequestOutput]:
        """Send how far a body is: at once, or when `REPORT_EVERY` has passed since the last message.

        Raises LocalProtocolError for a run that has ended or never began; nothing has changed then.
        """
        job = self._require(run)
        if not job.progress or job.cancelled is not None:
            return []
        if run in self._reports:
            self._reports[run] = report
            return []
        return self._send_report(run, job, report, now)

    def wake(self, key: Key, now: int) -> list[RequestOutput]:
        """Handle a timer of the worker: send the newest report of a run, if there is one that was not sent."""
        run = RunId(int(key[1]))
        report, job = self._reports.pop(run, None), self._runs.get(run)
        return [] if report is None or job is None else self._send_report(run, job, report, now)

    def cancel(self, link: LinkId, number: int, now: int) -> list[RequestOutput]:
        """Cancel a dispatch: refuse its queued calls at once, stop its running ones, which answer when they end."""
        actions: list[RequestOutput] = []
        for job in list(self._dispatches.get((link, number), {}).values()):
            actions += self._stop(job, faults.CANCELLED)
        actions += self._start_blocked(now)
        return actions + self._return_credit(now) if self._waiters else actions

    def link_lost(self, link: LinkId, now: int) -> list[RequestOutput]:
        """Handle the end of a link: remove its queued calls and stop its running ones.

        Their `CallFinished`s have no receiver.
        """
        actions: list[RequestOutput] = []
        for function, waiting in list(self._waiters.items()):
            waiting.pop(link, None)
            if not waiting:
                del self._waiters[function]
        for function, promised in list(self._promised.items()):
            promised.pop(link, None)
            if not promised:
                del self._promised[function]
        for number in list(self._by_link.get(link, ())):
            actions += self.cancel(link, number, now)
        return actions + self._return_credit(now) if self._waiters else actions

    def stop_all(self) -> list[RequestOutput]:
        """End the grace: refuse the queued calls, which may run elsewhere, and stop the running ones."""
        jobs = [job for dispatch in self._dispatches.values() for job in dispatch.values()]
        actions: list[RequestOutput] = []
        for job in jobs:
            actions += self._stop(job, faults.DRAINING if job.run is None else faults.LOST_BY_LEAVING)
        return actions

    def withdrawn(self, function: str, now: int) -> list[RequestOutput]:
        """Refuse the queued calls of a function that is no longer offered, unless they may run all the same."""
        self._slots.pop(function, None)
        self._queue_limits.pop(function, None)
        self._generators.pop(function, None)
        self._consumers.pop(function, None)
        self._paces.pop(function, None)
        self._waiters.pop(function, None)
        self._promised.pop(function, None)
        actions: list[RequestOutput] = []
        for job in list(self._queues.get(function, ())):
            refusal = self._refusal(job.call, job.assumed_idempotent)
            if refusal is not None and refusal.code != faults.DRAINING.code:
                actions += self._stop(job, refusal)
        return actions + self._start_blocked(now)

    # -- questions ----------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """The number of bodies that have started and not ended, with the cancelled ones."""
        return len(self._runs)

    def queue_lengths(self) -> dict[str, int]:
        """Return the number of calls that wait for a slot, by function."""
        return {function: len(queue) for function, queue in self._queues.items()}

    def job(self, run: RunId) -> Job | None:
        """Return the call of a run; None once its body has ended."""
        return self._runs.get(run)

    def has(self, link: LinkId, number: int) -> bool:
        """Return whether a call of that dispatch has no answer yet."""
        return (link, number) in self._dispatches

    def busy_on(self, link: LinkId) -> bool:
        """Return whether a call that came over `link` has no answer yet."""
        return link in self._by_link

    # -- inside -------------------------------------------------------------------------------------------------------

    def _require(self, run: RunId) -> Job:
        job = self._runs.get(run)
        if job is None:
            raise LocalProtocolError(f"run {shown(run)} does not run: it has ended already, or was never returned")
        return job

    def _send_report(self, run: RunId, job: Job, report: Report, now: int) -> list[RequestOutput]:
        self._reports[run] = None
        self._timers.set((TimerKind.REPORT, run), now + REPORT_EVERY)
        return [self._progress(job, report)]

    def _last_report(self, run: RunId, job: Job) -> list[RequestOutput]:
        """Return the report of an ended run that was not sent, which must come before its result."""
        if run not in self._reports:
            return []
        self._timers.cancel((TimerKind.REPORT, run))
        report = self._reports.pop(run)
        return [] if report is None or job.cancelled is not None else [self._progress(job, report)]

    def _progress(self, job: Job, report: Report) -> SendUpdate:
        call, text = job.call, sendable(report.text, FAILURE_SUMMARY)
        message = CallProgress(job.request, call.name, call.function, self._shown(), report.done, report.total, text)
        return SendUpdate(job.link, message)

    def _has_slot(self, function: str) -> bool:
        return self._busy.get(function, 0) < self._slots.get(function, 1)

    def _use_promise(self, function: str, link: LinkId, now: int) -> bool:
        """Use the place that was promised to a link. Return False if there is none, or its time is over."""
        promised = self._promised.get(function)
        if not promised:
            return False
        until = promised.pop(link, 0)
        if not promised:
            del self._promised[function]
        if until <= now:
            return False
        self._waiters.setdefault(function, OrderedDict()).setdefault(link, None)  # it may have more to send
        return True

    def _has_place(self, function: str, now: int) -> bool:
        """Return whether a slot or a place in the queue of a function is free, and not promised."""
        if not self._bounded:
            return True
        slots = self._slots.get(function, 1)
        queue = self._queues.get(function)
        taken = self._busy.get(function, 0) + (len(queue) if queue else 0)
        if self._promised and (promised := self._promised.get(function)):
            taken += sum(1 for until in promised.values() if until > now)
        return taken < slots + self._queue_limits.get(function, slots)

    def _return_credit(self, now: int) -> list[RequestOutput]:
        """Promise the free places of functions to those that wait for one, in turn."""
        actions: list[RequestOutput] = []
        for function, waiters in list(self._waiters.items()):
            while waiters and self._has_place(function, now):
                link, _ = waiters.popitem(last=False)
                promised = self._promised.setdefault(function, {})
                for late in [other for other, until in promised.items() if until <= now]:
                    del promised[late]
                promised[link] = now + POLL
                actions.append(CreditReturned(link, function))
            if not waiters:
                del self._waiters[function]
        return actions

    def _has_memory(self, job: Job) -> bool:
        """Return whether there is memory for the inputs of a call. No call overtakes others that wait for memory."""
        first = not self._blocked or next(iter(self._blocked)) == job.call.function
        return first and (not self._memory_used or self._memory_used + job.memory <= self._limits.inputs)

    def _start_blocked(self, now: int) -> list[RequestOutput]:
        """Start the calls that waited for memory, as far as there is some now: of each function one, then another."""
        actions: list[RequestOutput] = []
        before = -1
        while self._blocked and len(actions) > before:
            before = len(actions)
            for function in list(self._blocked):
                actions += self._next(function, now)
        return actions

    def _queue(self, job: Job) -> None:
        function = job.call.function
        if function not in self._queues:
            self._queues[function] = FairQueue()
            if self._has_slot(function):
                self._blocked[function] = None
        self._queues[function].add(job, job.client)
        self.queued += 1

    def _start(self, job: Job, now: int) -> RequestOutput:
        name = job.call.name
        if now >= job.deadline:
            fault = Fault(
                ErrorCode.DEADLINE_EXCEEDED, f"the deadline had passed before call {name!r} could start", {"call": name}
            )
            return self._end(job, Failed(name, fault, refused=True, waited=now - job.accepted))
        arguments = self._arguments(job)
        if isinstance(arguments, Fault):
            return self._end(job, Failed(name, arguments, refused=True))
        self._last_run += 1
        run = job.run = RunId(self._last_run)
        job.started = now
        job.inputs = {}
        job.call = msgspec.structs.replace(
            job.call, args=b""
        )  # what the body has is decoded, and may be there for long
        self._runs[run] = job
        self._memory_used += job.memory
        function = job.call.function
        self._busy[function] = self._busy.get(function, 0) + 1
        demand = 0
        if function in self._generators:
            self._generated[run] = _Generated()
            demand = ITEM_WINDOW
        fed = job.input is not None
        return Run(run, function, arguments[0], arguments[1], job.deadline, job.progress, demand, fed)

    def _arguments(self, job: Job) -> tuple[list[Any], dict[str, Any]] | Fault:
        """Return the arguments of a call with its references replaced.

        Each call decodes for itself, as bodies may change them.
        """
        call = job.call
        try:
            inputs = {
                dependency: job.inputs[dependency] for dependency in call.dependencies if dependency in job.inputs
            }
            if job.input is not None:
                if (refusal := self._not_consumable(job, job.input)) is not None:
                    return refusal
                inputs[job.input.source] = _NONE
            limits = self._limits
            decoded = (
                expand(self._codec, call.args, inputs, size=limits.expansion, elements=limits.expansion_elements)
                if inputs
                else self._codec.decode(call.args, inputs={})
            )
        except MissingReference as error:
            return _invalid(call, f"refers to {error.name!r}, which is not among its dependencies")
        except PathNotFound as error:
            return Fault(
                ErrorCode.UNRESOLVED_REFERENCE, f"call {call.name!r}: {error}", {"call": call.name, "name": error.name}
            )
        except MalformedValue as error:
            if error.limit is not None:
                return Fault(
                    ErrorCode.LIMIT_EXCEEDED, f"call {call.name!r} has arguments over a limit: {error}", error.limit
                )
            return _invalid(call, f"has arguments that cannot be read: {error}")
        except BaseException as error:  # what a registered type raises past the codec
            return _invalid(call, f"has arguments that cannot be read: {exception_text(error)}")
        if not (isinstance(decoded, list) and len(decoded) == 2):
            return _invalid(call, "has arguments that are not [[positional, ...], {keyword: value}]")
        args, kwargs = decoded
        if not isinstance(args, list) or not isinstance(kwargs, dict) or not all(type(key) is str for key in kwargs):
            return _invalid(call, "has arguments that are not [[positional, ...], {keyword: value}]")
        return args, kwargs

    def _not_consumable(self, job: Job, came: _Input) -> Fault | None:
        """Return why a call cannot take items one by one: its function, or its arguments, have changed."""
        parameter = self._consumers.get(job.call.function)
        if parameter is not None and is_whole_argument(job.call.args, parameter, came.source):
            return None
        return faults.takes_no_items(job.call, self._shown())

    def _row(self, job: Job, outcome: Outcome, now: int) -> Done | Failed:
        name, waited, ran = job.call.name, job.started - job.accepted, now - job.started
        if isinstance(outcome, Returned):
            try:
                return Done(name, self._codec.encode(outcome.value), waited, ran)
            except BaseException as error:  # UnsendableValue, or what a user's object raises past the codec
                outcome = Raised("UnsendableValue", f"the result cannot be sent: {exception_text(error)}")
        if isinstance(outcome, Raised):
            return Failed(name, self._failure(job.call, outcome), False, waited, ran)
        if isinstance(outcome, NotStarted):
            fault = faults.not_started(job.call, self._shown(), sendable(outcome.reason, FAILURE_SUMMARY))
            return Failed(name, fault, refused=True, waited=waited)
        if isinstance(outcome, Lost):
            fault = faults.lost_on_node(job.call, self._shown(), sendable(outcome.reason, FAILURE_SUMMARY))
            return Failed(name, fault, False, waited, ran)
        return Failed(name, job.cancelled or faults.CANCELLED, False, waited, ran)

    def _last_row(self, job: Job, generated: _Generated, outcome: Outcome, now: int) -> Done | Failed:
        """Return the row of a generator that has ended: its result is the list of its items, or nothing."""
        name, waited, ran = job.call.name, job.started - job.accepted, now - job.started
        if job.cancelled is not None:  # the list would not be complete
            return Failed(name, job.cancelled, False, waited, ran)
        if not isinstance(outcome, Returned):
            return self._row(job, outcome, now)
        if job.streamed:
            return Done(name, b"", waited, ran)
        try:
            return Done(name, join_items(generated.collected, generated.count), waited, ran)
        except ValueTooLarge as error:
            return Failed(name, faults.list_too_large(name, error), False, waited, ran)

    def _failure(self, call: Call, outcome: Raised) -> Fault:
        kind, message = sendable(outcome.kind, FAILURE_SUMMARY), sendable(outcome.message, FAILURE_TEXT)
        details = {
            "call": call.name,
            "function": call.function,
            "node": self._shown(),
            "type": kind,
            "message": message,
        }
        if outcome.traceback:
            details["traceback"] = sendable(outcome.traceback, FAILURE_TEXT)
        text = f"{call.function} failed on {self._shown()}: {kind}: {cut(message, FAILURE_SUMMARY)}"
        return Fault(ErrorCode.EXECUTION_FAILED, text, details)

    def _stop(self, job: Job, fault: Fault) -> list[RequestOutput]:
        """Refuse a queued call, or cancel a running one, which is cancelled once: again would end its clean-up."""
        if job.run is not None:
            first = job.cancelled is None
            job.cancelled = fault
            return [Cancel(job.run)] if first else []
        queue = self._queues[job.call.function]
        queue.remove(job, job.client)
        self.queued -= 1
        if not queue:
            self._drop_queue(job.call.function)
        return [self._end(job, Failed(job.call.name, fault, refused=True))]

    def _next(self, function: str, now: int) -> list[RequestOutput]:
        queue = self._queues.get(function)
        actions: list[RequestOutput] = []
        while queue and self._has_slot(function):
            job = queue.first()
            if job.memory and not self._has_memory(job):
                self._blocked[function] = None
                return actions
            median = self._paces[function].median if function in self._paces else 0
            job.charged = max(median, MILLISECOND)
            queue.take_turn(job.client, job.charged)
            queue.remove(job, job.client)
            self.queued -= 1
            self._blocked.pop(function, None)  # its next call waits behind those of other functions
            refusal = self._refusal(job.call, job.assumed_idempotent)
            if refusal is not None and refusal.code != faults.DRAINING.code:  # what was accepted before draining runs
                actions.append(self._end(job, Failed(job.call.name, refusal, refused=True)))
            elif job.deadline - now < median:
                late = faults.too_late(job.call, job.deadline - now, median)
                actions.append(self._end(job, Failed(job.call.name, late, refused=True, waited=now - job.accepted)))
            else:
                actions.append(self._start(job, now))
                if job.input is not None and job.run is not None:
                    actions += self._feed(job, job.input)
        if queue is not None and not queue:
            self._drop_queue(function)
        else:
            self._blocked.pop(function, None)  # what waits, waits for a slot
        return actions

    def _drop_queue(self, function: str) -> None:
        del self._queues[function]
        self._blocked.pop(function, None)

    def _end(self, job: Job, row: Done | Failed) -> CallFinished:
        key = (job.link, job.request)
        jobs = self._dispatches[key]
        del jobs[job.call.name]
        if not jobs:
            del self._dispatches[key]
            numbers = self._by_link[job.link]
            del numbers[job.request]
            if not numbers:
                del self._by_link[job.link]
        return CallFinished(job.link, job.request, row, last=not jobs)


_NONE: Final = b"\xc0"
"""None, encoded: what stands in the arguments for an iterator."""
_ELEMENT: Final = 64
"""The approximate bytes of an element of a decoded value beside its text."""
_FEW: Final = 4096


def _decoded_size(value: bytes) -> int:
    """Return the approximate bytes of a value once it is decoded; of a short one an upper bound."""
    size = len(value)
    try:
        return size + _ELEMENT * (size if size <= _FEW else count(value, size))
    except Exception:  # it cannot be read, and its call will say so
        return size


def _invalid(call: Call, text: str) -> Fault:
    return Fault(ErrorCode.INVALID_REQUEST, f"call {call.name!r} {text}", {"call": call.name})
