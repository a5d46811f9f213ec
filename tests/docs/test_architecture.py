"""The drawing of docs/explanation/architecture.md against the import contracts in pyproject.toml."""

import re
import tomllib

from tests.helpers.repository_files import ROOT


def contract(name: str) -> list[str]:
    """Return the layers of the contract whose name begins so, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (found,) = [one for one in project["tool"]["importlinter"]["contracts"] if one["name"].startswith(name)]
    return [re.sub(r"[()]", "", layer) for layer in found["layers"]]


def test_drawn_layers_match_the_contracts() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    drawing = page.partition("```text\n")[2].partition("```")[0]
    rows = [re.split(r" {2,}", line.strip())[0] for line in drawing.splitlines() if line.startswith("   ")]
    layers = [row for row in rows if not row.startswith("inputs:")]
    assert layers == contract("adapters, by folder") + contract("core:")
