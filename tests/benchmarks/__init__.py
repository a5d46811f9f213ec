"""How much slower than a bare protocol: `python -m tests.benchmarks`, explained in README.md beside this file.

A command and never a timed test: what it prints depends on the machine, only its ratios travel.
"""
