"""Exhaustive exploration: every order of events of a few nodes, within bounds."""
