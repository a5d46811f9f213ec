"""Whole runs: by seed, replayed from a file, shrunk, in reports and diagrams."""
