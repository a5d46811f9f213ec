"""The edge matrix: every way of running x every outcome x where x client x event loop, against real nodes.

`table.py` says what each cell must come to, `cells.py` runs one, `leftovers.py` looks at what it leaves behind. The
ordinary tests run pairs (`test_edges.py`); `python -m tests.edges` runs the full product.
"""
