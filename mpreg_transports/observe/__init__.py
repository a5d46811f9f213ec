"""Looking at a node from outside: its journal."""
