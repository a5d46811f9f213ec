"""One mutant against the tests and the seeds, in a copy of the repository that only one process uses.

The copy of the repository is made once. For each mutant one file of it is written and restored. The clean packages
are copied beside it: what kills a mutant must pass without it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from tests.mutants import Mutant as PlantedMutant
from tests.mutants import copy_packages
from tests.mutants.hunting import first_failing
from tests.mutation import ROOT
from tests.mutation.operators import mutated
from tests.mutation.reach import test_files
from tests.mutation.sample import Drawn

SIMULATED = 20.0
"""Simulated seconds of each seed."""
LIMIT = 300.0
"""Seconds for one run of the tests; fork_server.py limits the processor time."""
_IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
"""fork_server.py has imported plugins."""
_COPIED = ("tests", "docs", "fuzz", ".ci", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")
_ENDED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - (.*))?$", re.MULTILINE)


class Result(msgspec.Struct, frozen=True):
    """The result of one mutant: one line of the results file."""

    key: str
    file: str
    line: int
    operator: str
    where: str
    diff: str
    verdict: str
    """`killed`, `timeout` or `survived`."""
    killer: str = ""
    """The test or `seed N`, with the error."""
    tests: tuple[str, ...] = ()
    """The test files that were run."""
    seeds: int = 0
    """The number of seeds that it survived."""
    seconds: float = 0.0


class Bench:
    """A copy of the repository in `folder`, in which mutants run one after another."""

    def __init__(self, folder: Path, seeds: int) -> None:
        self._seeds = seeds
        self._folder, self._copy, self._clean = folder, folder / "mutant", folder / "clean"
        copy_packages(ROOT, self._copy)
        copy_packages(ROOT, self._clean)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self._copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.is_file():
                shutil.copy(source, self._copy / name)
        self._pass_without: set[str] = set()
        self._times = itertools.count(int(time.time()), 2)
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
        )  # fmt: skip

    def close(self) -> None:
        """End the process that runs the tests."""
        self._server.kill()
        self._server.communicate()

    def run(self, drawn: Drawn) -> Result:
        """Return the result of one mutant."""
        began = time.monotonic()
        bug = mutated((self._clean / drawn.file).read_text("utf-8"), drawn.mutant)
        verdict, killer, ran, survived = self.judge(drawn.file, bug)
        one = drawn.mutant
        return Result(
            drawn.key, drawn.file, drawn.line, one.operator, one.where, drawn.diff, verdict, killer[:300],
            tuple(ran), survived, round(time.monotonic() - began, 1),
        )  # fmt: skip

    def judge(self, file: str, bug: str) -> tuple[str, str, list[str], int]:
        """Return the verdict on a file with a bug, what killed it, the test files run, and the seeds survived."""
        clean = (self._clean / file).read_text("utf-8")
        ran: list[str] = []
        survived = 0
        try:
            verdict, killer = "survived", ""
            for tests in test_files(file):
                ran += tests
                verdict, killer = self._test(tests, file, clean, bug)
                if verdict != "survived":
                    break
            if verdict == "survived" and file.startswith("mpreg_proto/"):
                self._write(file, bug)
                verdict, killer, survived = self._run_seeds()
        finally:
            self._write(file, clean)
        return verdict, killer, ran, survived

    def _write(self, file: str, text: str) -> None:
        """Write a file of the copy, each time with a later time, so that no compiled file of a mutant is used again."""
        path = self._copy / file
        path.write_text(text, "utf-8")
        moment = next(self._times)
        os.utime(path, (moment, moment))

    def _test(self, tests: list[str], file: str, clean: str, bug: str) -> tuple[str, str]:
        """Run test files. What fails must pass without the mutant.

        The unit tests of the core use no clock, so their files are checked only once.
        """
        self._write(file, bug)
        verdict, killer = self._pytest(tests)
        once = file.startswith("mpreg_proto/")
        if verdict == "survived" or (once and self._pass_without.issuperset(tests)):
            return verdict, killer
        name = killer.split(" - ")[0]
        self._write(file, clean)
        again, _ = self._pytest([name] if "::" in name and not once else tests)
        if again != "survived" and once:
            raise RuntimeError(f"{tests} fail without a mutant: {(self._folder / 'output.txt').read_text()[-2000:]}")
        if again != "survived":
            return "survived", ""
        if once:
            self._pass_without.update(tests)
        return verdict, killer

    def _pytest(self, tests: list[str]) -> tuple[str, str]:
        """Run tests or test files until the first failure."""
        output = self._folder / "output.txt"
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--tb=no", "-rfE", f"-W{_IMPORTED}"]
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps([str(self._copy), [*options, *tests], str(output)]) + "\n")
        self._server.stdin.flush()
        process = int(self._server.stdout.readline())
        watch = threading.Timer(LIMIT, _kill, [process])
        watch.start()
        status = int(self._server.stdout.readline())
        timed_out = watch.finished.is_set() or status in (-signal.SIGXCPU, -signal.SIGKILL)
        watch.cancel()
        _kill(process)  # what the tests started
        if status == 0:
            return "survived", ""
        if timed_out:
            return "timeout", f"{tests[0]} did not end"
        text = output.read_text("utf-8", "replace")
        ended = _ENDED.findall(text)
        if ended:
            return "killed", " - ".join(part for part in ended[-1] if part)
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
        return "killed", f"{tests[0]}: pytest ended with {status}: {last}"

    def _run_seeds(self) -> tuple[str, str, int]:
        """Run seeds of the swarm until one fails that passes without the mutant."""
        run = PlantedMutant("", "", "", "")
        seed = 0
        while seed < self._seeds:
            failing = first_failing(self._copy, seed, self._seeds, SIMULATED, run)
            if failing is None:
                break
            if first_failing(self._clean, failing.seed, failing.seed + 1, SIMULATED, run) is None:
                found = f"invariant {failing.invariant}" if failing.invariant else "an exception"
                return "killed", f"seed {failing.seed}: {found}: {failing.text}", failing.seed
            seed = failing.seed + 1
        return "survived", "", self._seeds


def _kill(group: int) -> None:
    """Kill what is left of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
