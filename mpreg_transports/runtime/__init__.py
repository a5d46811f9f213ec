"""What runs a node or a client: driver, listener, dialing, buffers, timers, signals, and its log."""
