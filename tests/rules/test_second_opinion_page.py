"""``docs/second-opinion.md`` tells what the comparison with virt-v2v asks, no more and no less."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.second_opinion import QUESTIONS

PAGE = Path(__file__).parents[2] / "docs" / "second-opinion.md"


def test_the_page_tells_the_questions_that_are_asked() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## What both left", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert rows[1:] == [name for name, _ in QUESTIONS]
