"""Links and names of files in README.md, CONTRIBUTING.md and docs/ lead somewhere, and docs/index.md names every page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("benchmarks/**/*.md")),
]
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?:configs|docs|tests|benchmarks|examples|src|tools)/[\w./-]*\w\.(?:py|md|yaml|jsonl|txt|csv|json)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(_without_fences(page)) if not _leads(page, link)]
    assert not dead, dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    gone = [name for name in FILE.findall(page.read_text(encoding="utf-8")) if "NAME" not in name and not _exists(page, name)]
    assert not gone, gone


def test_every_page_is_in_the_index() -> None:
    named = set(LINK.findall(_without_fences(ROOT / "docs" / "index.md")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= named


def _leads(page: Path, link: str) -> bool:
    if link.startswith(("http://", "https://", "mailto:")):
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or (target.suffix == ".md" and anchor in _anchors(target)))


def _exists(page: Path, name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, page.parent))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ +(.+?) *$", _without_fences(page), re.M)
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


def _without_fences(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
