"""Two real nodes under too much work, and beside peers that behave badly; figures beside their targets.

    uv run python -m tests.overload [--seconds 30] [--only NAME]

`situations` holds what is measured, `load` the clients that measure, and `node` the program of a node. tests/scenarios
asserts the same in virtual time (test_overload.py).
"""
