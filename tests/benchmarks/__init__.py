"""The slowdown against a bare protocol: `python -m tests.benchmarks`, explained in README.md beside this file.

This is a command and never a timed test: its times depend on the machine, and only its ratios can be compared.
"""
