"""Faults of a simulated run: the swarm of random faults."""
