"""Contexts of calls: each sees what was set before the server's start, and nothing that another call has set."""

import decimal
from contextvars import ContextVar, copy_context

from mpreg_transports.functions.contexts import Contexts

var: ContextVar[str] = ContextVar("var", default="unset")


def test_each_call_gets_a_copy_of_the_start_context() -> None:
    def start() -> Contexts:
        var.set("start")
        return Contexts()

    contexts = copy_context().run(start)
    for make in (contexts.fresh, contexts.for_thread):
        context = make()
        assert context.run(var.get) == "start"
        context.run(var.set, "call")
        assert make().run(var.get) == "start"
    assert var.get() == "unset"


def test_changed_decimal_context_stays_in_its_call() -> None:
    def start() -> Contexts:
        decimal.getcontext().prec = 40
        return Contexts()

    def change() -> None:
        assert decimal.getcontext().prec == 40
        decimal.getcontext().prec = 5

    contexts = copy_context().run(start)
    for make in (contexts.fresh, contexts.for_thread) * 2:
        make().run(change)
