"""Real servers and clients on links in memory, in virtual time: each run is drawn from a seed and checked.

`loops` runs a coroutine so that a seed decides all order, `network` has the links and their faults, `bodies` the
functions, `world` one run, `checks` what must hold, `seeds` many runs. It is no part of the package: it depends on
private parts of trio and anyio, which no release of ours can promise.
"""
