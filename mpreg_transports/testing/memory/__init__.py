"""Real servers in one process, over a network in memory."""
