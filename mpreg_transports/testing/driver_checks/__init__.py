"""The conformance kit for drivers: `check_driver` runs a driver of a `Node` against peers on real sockets.

report.py has what goes in and what comes out, peers.py the peers, bench.py what one check uses, checks.py the checks.
"""
