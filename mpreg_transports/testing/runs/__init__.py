"""Whole runs: by seed, again from a file, shrunk, in reports and drawings."""
