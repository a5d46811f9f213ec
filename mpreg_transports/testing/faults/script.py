"""A script of faults that is known before the run, such as one that hypothesis has drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mpreg_transports.testing.simulation.chooser import Chooser
from mpreg_transports.testing.simulation.hosts import Spec
from mpreg_transports.testing.simulation.trace import Action


class Script(msgspec.Struct, frozen=True):
    """The same actions in each run, as `Simulation(faults=...)` takes them."""

    actions: tuple[Action, ...] = ()

    def draw(self, chooser: Chooser, nodes: Mapping[str, Spec]) -> tuple[dict[str, Any], str, list[Action]]:
        """Return no options, the script in words, and the actions."""
        names = ", ".join(action.name for action in self.actions)
        return {}, f"script {names or 'without faults'}", list(self.actions)
