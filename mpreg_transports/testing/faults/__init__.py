"""What goes wrong in a run: the swarm, and the scenarios."""
