"""hypothesis strategies for what mpreg takes: values, clusters, graphs, requests, messages and faults.

They need hypothesis, which the extra `testing` of mpreg installs. Together with `oracle` they fuzz the resolver and
placement (docs/howto/fuzz.md).
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is None:
    raise ImportError("mpreg_transports.testing.strategies needs hypothesis: pip install hypothesis")

from mpreg_transports.testing.strategies.cluster import FUNCTIONS, clusters
from mpreg_transports.testing.strategies.fault import faults
from mpreg_transports.testing.strategies.graph import graphs
from mpreg_transports.testing.strategies.message import messages
from mpreg_transports.testing.strategies.request import requests
from mpreg_transports.testing.strategies.value import values

__all__ = ["FUNCTIONS", "clusters", "faults", "graphs", "messages", "requests", "values"]
