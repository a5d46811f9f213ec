"""The costs and the speed of membership, measured on the real core in the simulator, beside its targets.

    uv run python -m tests.membership_figures [--nodes 100 1000 ...] [--seed N] [--crashes N]

A cluster forms by itself, stays idle, changes, and loses nodes. Nothing here is a test; docs/explanation/membership.md
contains the output.
"""
