"""The loop that carries out a node's effects: links, timers, functions.

It is the loop of docs/howto/embed.md on anyio. Inputs go into the `Node`, and the effects are carried out before
anything is awaited, so there are no locks and no intermediate states. link_loop.py serves the links; no message has a
task of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextvars import copy_context
from functools import partial
from typing import Any, assert_never

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mpreg_proto.effects import (
    Cancel,
    Demand,
    Dial,
    Effect,
    Feed,
    Framing,
    HangUp,
    KeepAlive,
    Lost,
    Notify,
    NotStarted,
    Outcome,
    Pause,
    Raised,
    Resume,
    Run,
    Send,
)
from mpreg_proto.errors import CloseCode
from mpreg_proto.ids import Address, LinkId, RunId
from mpreg_proto.limits import SECOND
from mpreg_proto.node import Node
from mpreg_proto.notices import Notice
from mpreg_proto.wire.handshake import Authentication
from mpreg_transports.functions.coroutines import CoroutineRun
from mpreg_transports.functions.execution import ExecutionMode, Function, FunctionRun, Runtime
from mpreg_transports.functions.generators import GeneratorTask, GeneratorThread
from mpreg_transports.functions.iterators import ItemIterator
from mpreg_transports.functions.pools import Pool
from mpreg_transports.functions.progress import SILENT, RunReporter
from mpreg_transports.links.base import Link, LinkEnded
from mpreg_transports.runtime import logs
from mpreg_transports.runtime.clock import Clock, clock
from mpreg_transports.runtime.link_loop import LinkLoop

log: logs.NodeLog = logs.get(__name__)

_CLOSE_TIMEOUT = 5_000_000_000
"""The nanoseconds for links to close once the node has left, counted while no peer takes any of the unsent bytes."""
_HOSTS = 1024
"""The hosts whose `POST /rpc` share turns that are remembered; the oldest is forgotten first."""
_CLOSE_CHECK = 200_000_000
"""The nanoseconds between two checks whether peers still take what was sent before the node left."""
_CLEANUP_SECONDS = 2.0
"""The seconds for cancelled coroutines to clean up when the node has ended; then they are abandoned."""
BLOCKING_NS = 100_000_000
"""The nanoseconds for which an inline function may block the event loop without a warning."""


_GENERATORS = (GeneratorTask, GeneratorThread)


class _FunctionRunState:
    """The state of one running body."""

    __slots__ = ("began", "body", "clock", "function", "iterator", "reporter", "taken")

    def __init__(self, function: Function, clock: Clock) -> None:
        self.function = function
        self.clock = clock
        self.began = clock()
        self.body: FunctionRun | None = None
        """Set once the body has been started."""
        self.reporter: RunReporter | None = None
        """The progress reporter of the body, if its caller wants the progress."""
        self.iterator: ItemIterator | None = None
        """The iterator of a `fed` body."""
        self.taken = 0
        """The items that the body has taken from it, and the node does not know of."""

    def begin(self) -> None:
        """Record the time at which its task begins."""
        self.began = self.clock()


class Driver:
    """The runner of one `Node`. `dial` opens a link to an address or raises LinkEnded; `observe` gets each notice."""

    def __init__(
        self,
        node: Node,
        *,
        functions: MutableMapping[str, Function],
        dial: Callable[[Address], Awaitable[Link]],
        observe: Callable[[Notice], None],
        clock: Clock = clock,
    ) -> None:
        self.node = node
        self._clock = clock
        self._functions = functions
        self._dial_link = dial
        self._observe = observe
        self._links = LinkLoop(node, flush=self.flush, spawn=self._spawn, clock=clock)
        self._local_hosts: dict[LinkId, str] = {}
        self._runtime: Runtime | None = None
        self._context = copy_context()
        """The context in which effects are carried out, so that a new link never gets the context of an ended body."""
        self._running: dict[RunId, _FunctionRunState] = {}
        self._ended_runs: list[tuple[RunId, Outcome | list[Any], int]] = []
        """The outcomes of bodies that have ended, and when, and the items of generators; `_process_outcomes` takes all
        of one turn of the loop."""
        self._taking: list[RunId] = []
        """The runs that have taken items since the last turn of the loop."""
        self._outcomes = anyio.Event()
        """Set while an outcome waits. On asyncio also after coroutines were started: many end in their first step."""
        self._coroutines_started = False
        self._due: int | None = None
        self._wakeup = anyio.Event()
        self._tasks: TaskGroup | None = None
        self.ended: anyio.Event = anyio.Event()
        """Set when the node has left and its links are closed."""
        self._stopped = False
        self._flushing = False
        self._backlog_reported = False
        """True if a backlog was reported since the effects were carried out last."""
        self._close_deadline: int | None = None
        self._hosts: dict[str, LinkId] = {}
        """The number under which the messages of each host take turns, see `exchange`; the latest are last."""
        self.on_local_host: Callable[[str, Address | None], None] | None = None
        """Called for each new link with this machine's address and the dialled one (None: the link was accepted)."""
        self.on_failure: Callable[[str, Raised], None] = lambda function, raised: None
        """Called with the name of each function whose body has raised, and the exception."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the node until it has left and its links are closed, or the caller cancels."""
        async with anyio.create_task_group() as self._tasks:
            self._runtime, self._context = Runtime(self._tasks.start_soon), copy_context()
            self._links.start()
            self._tasks.start_soon(self._process_outcomes)
            try:
                self.flush()
                task_status.started()
                while not self._has_ended():
                    self._due = self.node.next_timeout()
                    await self._sleep()
                    self.node.wake(now=self._clock())
                    self.flush()
            finally:
                self._stopped = True
                self._links.end_slots()
                await self._end_bodies()
            self._tasks.cancel_scope.cancel()  # threads that cannot be interrupted are not waited for
        self.ended.set()

    def _has_ended(self) -> bool:
        """Return whether the node has left and its links are closed.

        A link that does not close delays this for a bounded time.
        """
        if not self.node.left:
            return False
        if self._close_deadline is None or self._links.moving:
            self._close_deadline = self._clock() + _CLOSE_TIMEOUT
        return not self._links or self._clock() >= self._close_deadline

    def flush(self) -> None:
        """Carry out all effects of the node. Never awaits.

        A nested call (by an inline function) does nothing: the outer call carries out the effects afterwards.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            self._context.run(self._apply_effects)
        finally:
            self._flushing = False

    def _apply_effects(self) -> None:
        self._backlog_reported = True
        while self._backlog_reported:
            self._backlog_reported = False
            while effects := self.node.drain():
                for effect in effects:
                    try:
                        self._apply_effect(effect)
                    except Exception:  # of users' observers, loop factories, ...: it ends nothing but this effect
                        self._effect_failed(effect)
            self._links.write()
        if self._coroutines_started:
            self._coroutines_started = False
            self._outcomes.set()  # behind the first steps of the coroutines in the same turn; trio has no such order
        if self.node.next_timeout() != self._due or (self.node.left and self._close_deadline is None):
            self._wakeup.set()

    def _apply_effect(self, effect: Effect) -> None:
        match effect:
            case Send() | HangUp() | KeepAlive() | Pause() | Resume():
                self._links.apply(effect)
            case Run():
                self._run(effect)
            case Notify(notice):
                self._observe(notice)
            case Dial(address, within):
                self._spawn(self._dial, address, within)
            case Cancel(run):
                if (running := self._running.get(run)) is not None and running.body is not None:
                    running.body.cancel()
            case Demand(run, items):
                if (running := self._running.get(run)) is not None and isinstance(running.body, _GENERATORS):
                    running.body.demand(items)
            case Feed(run, items, last):
                if (running := self._running.get(run)) is not None and running.iterator is not None:
                    running.iterator.feed(items, last)
            case _:
                assert_never(effect)

    def _effect_failed(self, effect: Effect) -> None:
        """Report an effect that raised as an error of its call, dial or notice."""
        log.exception("a defect while carrying out %s", type(effect).__name__)
        if isinstance(effect, Run) and self.node.worker.job(effect.run) is not None:
            self._running.pop(effect.run, None)
            self.node.finished(effect.run, Raised("RuntimeError", "the node could not run it"), now=self._clock())
        elif isinstance(effect, Dial):
            self.node.dial_failed(effect.address, now=self._clock())

    async def pump(self, transport: Link, dialled: Address | None = None) -> None:
        """Read the link until it ends; its writer runs beside."""
        node = self.node
        if node.left:  # the end of the node does not wait for links that come now
            await transport.close(CloseCode.GOING_AWAY)
            return
        limits = node.config.limits
        link = self._links.attach(
            transport, high_water=limits.slow_link, stalled=limits.stalled / SECOND, backlog=self._report_backlog
        )

        def begin() -> None:
            if self.on_local_host is not None and transport.local_host is not None:
                self._local_hosts[link] = transport.local_host
                try:
                    self.on_local_host(transport.local_host, dialled)
                except Exception:
                    log.exception("a defect while reporting an address of this machine")
            node.link_opened(
                link,
                framing=transport.framing,
                dialled=dialled,
                now=self._clock(),
                verdict=transport.verdict,
            )

        def end() -> None:
            self._local_hosts.pop(link, None)
            self._wakeup.set()

        await self._links.run(link, transport, begin=begin, end=end)

    def local_hosts(self) -> set[str]:
        """Return this machine's addresses at the local ends of the open links."""
        return set(self._local_hosts.values())

    async def exchange(self, body: bytes, host: str = "", verdict: Authentication = Authentication.NODE) -> bytes:
        """Return the reply to one classic message, as if it had come over a link of its own (`POST /rpc`).

        All messages of a `host` take turns as one client; empty: each is a client of its own. `verdict` is the verdict
        on its sender. Raises LinkEnded if the node ends first.
        """
        if self._stopped:
            raise LinkEnded("the node has ended")
        link, slot = self._links.open_slot()
        try:
            client, framing = self._client_at(host, link) if host else None, Framing.CLASSIC_MESSAGES
            self.node.link_opened(
                link, framing=framing, dialled=None, now=self._clock(), client=client, verdict=verdict
            )
            self.node.receive(link, body, now=self._clock())
            self.flush()
            return await slot.answer()
        finally:
            self._links.end(link)

    def _client_at(self, host: str, link: LinkId) -> LinkId:
        """Return the number of the client at a host: that of its first link, as long as the host is remembered."""
        client = self._hosts[host] = self._hosts.pop(host, link)
        if len(self._hosts) > _HOSTS:
            del self._hosts[next(iter(self._hosts))]
        return client

    # -- inside -------------------------------------------------------------------------------------------------------

    def _report_backlog(self, link: LinkId, unsent: int) -> None:
        self.node.backlog(link, unsent, now=self._clock())
        self._backlog_reported = True
        self.flush()  # it may pause or resume the link

    async def _sleep(self) -> None:
        """Wait for the node's next deadline, or until that deadline changes.

        Once the node has left, wait at most until the next check of its links.
        """
        check = None if self._close_deadline is None else self._clock() + _CLOSE_CHECK
        due = min((at for at in (self._due, self._close_deadline, check) if at is not None), default=None)
        if due is None:
            await self._wakeup.wait()
        else:
            with anyio.move_on_after(max(0, due - self._clock()) / 1e9):
                await self._wakeup.wait()
        self._wakeup = anyio.Event()

    def _spawn(self, start: Callable[..., Coroutine[object, object, None]], *args: object) -> None:
        assert self._tasks is not None, "effects are carried out once run() is running"
        if not self._stopped:  # when all is cancelled, links may end after `run`, and the node would dial again
            self._tasks.start_soon(start, *args)

    async def _dial(self, address: Address, within: int) -> None:
        try:
            transport = await self._open(address, within)
        except LinkEnded as end:
            log.debug("%s: %s", address, end.reason)
            self._dial_failed(address)
        except Exception:  # an address that another node sent must never end this node
            log.exception("%s: a defect while dialling it", address)
            self._dial_failed(address)
        else:
            try:
                await self.pump(transport, address)
            except Exception:
                log.exception("%s: a defect ended this link", address)

    async def _open(self, address: Address, within: int) -> Link:
        """Open a link. Raises LinkEnded, also after `within` nanoseconds."""
        with anyio.move_on_after(within / 1e9):
            return await self._dial_link(address)
        raise LinkEnded(f"no answer within {within / 1e9:g} s")

    def _dial_failed(self, address: Address) -> None:
        self.node.dial_failed(address, now=self._clock())
        self.flush()

    def _run(self, run: Run) -> None:
        function = self._functions.get(run.function)
        runtime = self._runtime
        assert runtime is not None, "effects are carried out once run() is running"
        if function is None or function.spec.streaming != bool(run.demand) or (run.fed and not function.spec.consumes):
            self.node.finished(run.run, NotStarted("it was withdrawn just now"), now=self._clock())
        elif self._stopped:  # a queued body, whose turn came as a cancelled one ended: nothing would end it
            self.node.finished(run.run, NotStarted("the node has ended"), now=self._clock())
        elif function.mode is ExecutionMode.INLINE:
            began = self._clock()
            reporter = self._reporter(run, function, lambda: None)  # its reports come with the outcome
            outcome = function.run_inline(run, runtime, reporter or SILENT)
            ended = self._clock()
            self._report_progress(run.run, reporter)
            self._report_outcome(run.run, run.function, outcome, began=began, ended=ended)
            if ended - began > BLOCKING_NS:
                took = (ended - began) / 1e6
                text = "%s blocked the event loop for %.0f ms; remove inline=True to run it in a thread"
                log.warning(text, run.function, took)
        else:
            running = self._running[run.run] = _FunctionRunState(function, self._clock)
            running.reporter = self._reporter(run, function, partial(self._reports_waiting, run.run))
            if run.fed:
                running.iterator = ItemIterator(last=False, took=partial(self._record_taken, run.run))
            body = self._start(run, function, running)
            if isinstance(body, (NotStarted, Lost, Raised)):
                self._body_ended(run.run, body, self._clock())
            else:
                running.body = body
                if function.mode is ExecutionMode.EVENT_LOOP and runtime.loop is not None:
                    self._coroutines_started = True

    def _start(
        self, run: Run, function: Function, running: _FunctionRunState
    ) -> FunctionRun | NotStarted | Lost | Raised:
        assert self._runtime is not None
        done, reporter = partial(self._record_ended_run, run.run), running.reporter or SILENT
        if run.demand:
            deliver = partial(self._record_items, run.run)
            return function.start_generator(
                run,
                self._runtime,
                deliver,
                done,
                on_start=running.begin,
                reporter=reporter,
                iterator=running.iterator,
            )
        return function.start(
            run, self._runtime, done, on_start=running.begin, reporter=reporter, iterator=running.iterator
        )

    def _reporter(self, run: Run, function: Function, notify: Callable[[], None]) -> RunReporter | None:
        """Return a reporter for a body that has one and whose caller wants its progress, or None."""
        return RunReporter(notify) if run.reports and function.progress is not None else None

    def _reports_waiting(self, run: RunId) -> None:
        """Take the progress of a body soon. Called in the thread of the body."""
        assert self._runtime is not None
        self._runtime.call_soon_threadsafe(self._take_progress, run)

    def _take_progress(self, run: RunId) -> None:
        if not self._stopped and (running := self._running.get(run)) is not None:
            self._report_progress(run, running.reporter)
            self.flush()

    def _report_progress(self, run: RunId, reporter: RunReporter | None) -> None:
        report = None if reporter is None else reporter.take()
        if report is not None:
            self.node.reported(run, report, now=self._clock())

    def _record_ended_run(self, run: RunId, outcome: Outcome) -> None:
        """Record an outcome for `_process_outcomes`.

        Called in the task of a coroutine, or in a callback of the event loop, also after the node has ended.
        """
        running = self._running.get(run)
        if running is None or (self._stopped and _coroutine_of(running.body) is None):
            return  # nothing would process it, and whoever keeps this driver would keep the value
        self._ended_runs.append((run, outcome, self._clock()))
        self._outcomes.set()
        if self._stopped and not self._flushing:  # `_process_outcomes` has ended, or is about to
            self._process_ended_runs()
            self._wakeup.set()

    def _record_items(self, run: RunId, items: list[Any]) -> None:
        """Record items for `_process_outcomes`. Called where `_record_ended_run` is."""
        if run not in self._running or self._stopped:
            return
        last = self._ended_runs[-1] if self._ended_runs else None
        if last is not None and last[0] == run and isinstance(last[1], list):
            last[1].extend(items)  # one message for all
            return
        self._ended_runs.append((run, items, 0))
        self._outcomes.set()

    def _record_taken(self, run: RunId) -> None:
        """Record that a body has taken an item. Called in a task of the body."""
        running = self._running.get(run)
        if running is None or self._stopped:
            return
        if not running.taken:
            self._taking.append(run)
            self._outcomes.set()
        running.taken += 1

    async def _process_outcomes(self) -> None:
        """Process the outcomes of each turn of the event loop together: one flush, and one write per link."""
        while True:
            await self._outcomes.wait()
            self._outcomes = anyio.Event()
            self._process_ended_runs()

    def _process_ended_runs(self) -> None:
        ended, self._ended_runs = self._ended_runs, []
        taking, self._taking = self._taking, []
        for run in taking:  # before these bodies end
            self._report_taken(run)
        if ended:
            self._context.run(self._report_ended_runs, ended)
        if ended or taking:
            self.flush()

    def _report_taken(self, run: RunId) -> None:
        if (running := self._running.get(run)) is not None:
            items, running.taken = running.taken, 0
            self.node.took(run, items, now=self._clock())

    def _report_ended_runs(self, ended: list[tuple[RunId, Outcome | list[Any], int]]) -> None:
        for run, outcome, at in ended:
            if not isinstance(outcome, list):
                self._body_ended(run, outcome, at)
            elif run in self._running:
                self.node.yielded(run, outcome, now=self._clock())

    def _body_ended(self, run: RunId, outcome: Outcome, ended: int) -> None:
        running = self._running.pop(run, None)
        if running is None:
            return
        function = running.function
        if running.iterator is not None:
            running.iterator.close()
        if function.pool is not None and function.pool.closed_reason:
            self._withdraw(function.pool)
        if running.reporter is not None:
            self._report_progress(run, running.reporter)
        now = self._clock()
        self._report_outcome(run, function.spec.name, outcome, began=running.began + now - ended, ended=now)

    def _report_outcome(self, run: RunId, function: str, outcome: Outcome, *, began: int, ended: int) -> None:
        self.node.finished(run, outcome, now=ended, began=began)
        if type(outcome) is Raised:
            try:
                self.on_failure(function, outcome)
            except Exception:
                log.exception("a defect while reporting that %s failed", function)

    def _withdraw(self, pool: Pool) -> None:
        """Withdraw the functions of `pool`, which runs no body any more."""
        names = [name for name, one in self._functions.items() if one.pool is pool]
        for name in names:
            del self._functions[name]
            self.node.withdraw(name, now=self._clock())
        if names:
            log.warning("%s withdrawn: %s", ", ".join(names), pool.closed_reason)

    async def _end_bodies(self) -> None:
        """Cancel the coroutines of the ended node, once; wait a little for them; close executors made for it.

        No body is kept then: those in threads and executors go on, and their outcomes are dropped.
        """
        self._process_ended_runs()
        for pool in dict.fromkeys(one.pool for one in self._functions.values() if one.pool is not None):
            pool.close()
        bodies = {run: body for run, one in self._running.items() if (body := _coroutine_of(one.body)) is not None}
        for one in self._running.values():
            if isinstance(one.body, _GENERATORS):
                one.body.cancel()
        for body in bodies.values():
            body.cancel()
        with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
            while any(run in self._running for run in bodies):
                await self._wakeup.wait()
                self._wakeup = anyio.Event()
        for run in [run for run in bodies if run in self._running]:
            log.warning("%s did not end when it was cancelled: abandoned", self._running[run].function.spec.name)
            bodies[run].abandon()
        self._running.clear()
        self._ended_runs.clear()


def _coroutine_of(body: FunctionRun | None) -> CoroutineRun | None:
    """Return the coroutine of a body that is or has one."""
    if isinstance(body, GeneratorTask):
        return body.body
    return body if isinstance(body, CoroutineRun) else None
