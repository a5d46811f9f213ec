"""Print each growth row beside its bound; exit with 1 if one exceeds it."""

import importlib
import pkgutil
import sys

from tests.benchmarks import growth


def main() -> int:
    """Measure the rows of every module of this package."""
    worst = 0
    for module in pkgutil.iter_modules(growth.__path__):
        if module.name.startswith("_"):
            continue
        for row in importlib.import_module(f"{growth.__name__}.{module.name}").rows():
            verdict = "met" if row.met else "MISSED"
            print(
                f"{row.name:32} {row.small:12.6g} {row.large:12.6g} {row.ratio:8.2f} x (at most {row.most:g}) {verdict}"
            )
            worst = max(worst, 0 if row.met else 1)
    return worst


if __name__ == "__main__":
    sys.exit(main())
