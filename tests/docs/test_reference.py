"""docs/ match the source: messages, errors, limits, stages, settings and commands."""

import re

import pytest

from mpreg_proto.limits import Limits
from mpreg_proto.wire.session import STAGES
from tests.docs.pages import PAGES, ROOT, generated
from tests.docs.reference import GENERATED, renewed, with_parts


@pytest.mark.parametrize("page", PAGES)
def test_generated_regions_are_up_to_date(page: str) -> None:
    """If this fails: `uv run python -m tests.docs.reference` writes them again."""
    assert with_parts(renewed(PAGES[page])) == PAGES[page]


def test_each_generated_region_is_in_one_page() -> None:
    found = [name for source in PAGES.values() for name in generated(source)]
    assert sorted(found) == sorted(GENERATED)


def test_link_diagram_matches_the_transition_table() -> None:
    """Read back from the page, arrow by arrow, by other code than the code that writes it."""
    diagram = next(text for source in PAGES.values() for name, text in generated(source).items() if name == "stages")
    arrows = [line.strip() for line in diagram.splitlines() if "-->" in line and "[*]" not in line]
    drawn = {}
    for arrow in arrows:
        before, _, rest = arrow.partition(" --> ")
        after, _, cause = rest.partition(": ")
        drawn[before, cause] = after
    assert len(arrows) == len(STAGES)
    assert drawn == {(before.name, cause.name): after.name for (before, cause), after in STAGES.items()}


def test_every_limit_is_used() -> None:
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("mpreg_*/**/*.py") if path.name != "limits.py")
    unused = [name for name in Limits.__struct_fields__ if not re.search(rf"imits\.{name}\b", sources)]
    assert unused == []
