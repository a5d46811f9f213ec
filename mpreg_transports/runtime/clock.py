"""The clock of nodes and clients. A `NetworkBackend` (runtime/dialing.py) brings its own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns the time in nanoseconds since any moment; it never goes back."""

clock: Clock = time.monotonic_ns
