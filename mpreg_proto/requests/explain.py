"""Where would the calls of a request run, and why: the same functions that route, asked without running anything."""

from __future__ import annotations

from mpreg_proto.errors import Fault
from mpreg_proto.limits import Limits
from mpreg_proto.requests import faults
from mpreg_proto.requests.graph import plan
from mpreg_proto.requests.placement import CatalogueView, Loads, rank, reason, rejected
from mpreg_proto.requests.scheduler import no_match_details
from mpreg_proto.wire.messages import Explained, Explanation, Request


def explain(request: Request, catalogue: CatalogueView, loads: Loads, limits: Limits) -> Explanation:
    """A row a call in the request's order: the equals among which the draw would fall now, or the error that it would
    be.
    """
    planned = plan(request, limits)
    if isinstance(planned, Fault):
        return Explanation(request.id, fault=planned.with_details(maybe_executed=False))
    rows: list[Explained] = []
    explained = 0
    for call in request.calls:
        candidates = catalogue.offers(call.function, call.resources, call.version)
        equals = rank(candidates, loads, resources=call.resources)
        if not equals:
            explained += 1
            fault = faults.not_found(call, no_match_details(catalogue, call, explained))
            if not request.partial:
                return Explanation(request.id, fault=fault.with_details(maybe_executed=False))
            rows.append(Explained(call.name, call.function, (), fault.message))
            continue
        rows.append(
            Explained(
                call.name,
                call.function,
                tuple(equal.shown for equal in equals),
                reason(equals, candidates),
                rejected(candidates, equals, loads),
            )
        )
    return Explanation(request.id, tuple(rows))
