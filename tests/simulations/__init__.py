"""Commands that take minutes: thousands of seeds of the swarm, and the simulator's figures. Not part of the tests.

uv run python -m tests.simulations --seeds 2000
uv run python -m tests.simulations figures
uv run python -m tests.simulations hashes > tests/scenarios/hashes.json
"""
