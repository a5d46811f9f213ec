"""The process in which atheris runs: it instruments the core and never returns. `python -m fuzz` starts it.

python -m fuzz.guided TARGET [libFuzzer's options] FOLDER...
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]


def main() -> None:
    """Fuzz the target that the first argument names."""
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["mpreg_proto"], enable_loader_override=False):
        from mpreg_transports.testing.fuzz import harness

        function = harness(target)
    atheris.Setup(sys.argv, function)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
