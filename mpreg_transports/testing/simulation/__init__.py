"""The simulator: hosts, network and events in virtual time, and the watchers."""
