"""The parts that run a node or a client: driver, listener, dialing, buffers, timers, signals, and the log."""
