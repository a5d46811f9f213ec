"""The simulator: hosts, network and events in virtual time, and who watches them."""
