"""Real nodes under SIGKILL, SIGSTOP and bad links, with a ledger of all bodies: nothing twice, everything answered.

    uv run python -m tests.chaos [--seconds 120] [--rate 200] [--faults kill,stop,links] [--seed N]

`run` draws the faults and the requests, `node` is the program of a node, `proxy` is the bad network between them, and
`ledger` is the record of the bodies that have started.
"""
