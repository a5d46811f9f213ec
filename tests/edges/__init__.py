"""The edge matrix: every way to run a function x every outcome x node x client x event loop, against real nodes.

`table.py` defines the expected end of each cell, `cells.py` runs a cell, `leftovers.py` finds what it leaves behind.
The ordinary tests run pairs (`test_edges.py`); `python -m tests.edges` runs the full product.
"""
