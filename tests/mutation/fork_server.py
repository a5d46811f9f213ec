"""A process that has imported pytest and what the packages need, and forks for each run of the tests.

The imports take seconds on a busy machine, longer than most tests. The packages and tests themselves are imported only
in the forks: each is another mutant. A request is one line of JSON on stdin: the folder with the copy of the
repository, the arguments of pytest, and the file for its output. The answer is two lines on stdout: the process id of
the fork, which leads a process group of its own, and its exit status when it has ended.
"""

from __future__ import annotations

import json
import os
import resource
import sys

MEMORY = 4 << 30
PROCESSOR = 120
"""Seconds of processor time of a fork, so that a busy machine has no effect."""


def main() -> None:
    """Answer requests until stdin ends."""
    # Only modules of others; nothing here may import the packages.
    import anyio.from_thread
    import h11
    import hypothesis
    import msgpack
    import msgspec
    import pytest
    import trio
    import wsproto

    assert all((anyio, h11, hypothesis, msgpack, msgspec, trio, wsproto))
    answers = os.dup(1)  # no file object, which the tests would find unclosed
    for line in sys.stdin:
        folder, arguments, output = json.loads(line)
        process = os.fork()
        if not process:
            os.setsid()
            os.close(answers)
            nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for target, source in enumerate((nothing, file, file)):
                os.dup2(source, target)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
            os.chdir(folder)
            os.environ["PYTHONPATH"] = folder
            sys.path[0] = folder
            assert not any(name.startswith("mpreg") for name in sys.modules)
            status = int(pytest.main(arguments))
            sys.stdout.flush()
            os._exit(status)
        os.write(answers, f"{process}\n".encode())
        os.write(answers, f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n".encode())


if __name__ == "__main__":
    main()
