"""Users' functions: how each one is described and executed, and what threads, executors and forks need."""
