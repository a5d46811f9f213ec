"""Cells of a notebook: each is compiled with top-level await and awaited in its own task, in one running event loop.

IPython's kernel does the same with a cell. The test does not use the kernel itself: with its message queues and
debugger it is larger than all other dependencies of the tests together.
"""

import ast
import asyncio
import inspect
from types import CodeType
from typing import Any

OPENING = """
from mpreg_transports import Client, Server
server = Server(port=0)
await server.__aenter__()
client = await Client(server.url).connect()
"""
CELLS = {
    "a call": "assert await client.call('echo', 1) == 1",
    "a graph": """
graph = client.graph()
first = graph.call("echo", [1, 2])
graph.call("echos", first, first[0])
assert await graph.run() == {"echos": [[1, 2], 1]}
""",
    "a stream": "assert [row async for row in graph.stream()] == [('echos', [[1, 2], 1])]",
    "a function": """
@server.function
async def double(value):
    return 2 * value
assert await client.call("double", 4, wait=5) == 8
""",
    "the cell with the client run again": "client = await Client(server.url).connect()",
    "calls that run beside": """
import asyncio
waiting = asyncio.create_task(client.call("echo", 3))
""",
    "what they gave": "assert await waiting == 3",
}
CLOSING = """
await server.__aexit__(None, None, None)
await client.close()
"""


async def run_cell(text: str, names: dict[str, Any]) -> None:
    code = compile(text, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)
    else:
        exec(code, names)


def test_cells_in_one_running_loop() -> None:
    names: dict[str, Any] = {}
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run_cell(OPENING, names))
        first = names["client"]
        for text in CELLS.values():
            loop.run_until_complete(run_cell(text, names))
        loop.run_until_complete(first.close())
        loop.run_until_complete(run_cell(CLOSING, names))
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()
