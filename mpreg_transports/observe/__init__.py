"""Observation of a node from outside: its journal."""
