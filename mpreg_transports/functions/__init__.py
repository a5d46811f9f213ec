"""Users' functions: their description and execution, and support for threads, executors and forks."""
