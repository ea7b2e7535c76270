"""The probes of ``tests/real`` can be run, and the pages and the table of probes agree."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.probes import PROBES

TESTS = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (TESTS / "real").glob("test_real_*.py"))
VARIABLE = re.compile(r"IMAGEPORT_REAL_(?:AWS|AZURE)_[A-Z_]+")
NAMED = re.compile(r'(?:named\.get|named\[|needs)\(?"([a-z_]+)"|"([a-z_]+)" in \w+\.named')
ROW = re.compile(r"`((?:aws|azure)-[a-z0-9-]+)`")


def functions(module: str) -> list[Callable[..., Any]]:
    found = importlib.import_module(f"tests.real.{module}")
    return [item for name, item in vars(found).items() if name.startswith("test_")]


@pytest.mark.parametrize("module", MODULES)
def test_every_probe_says_which_rows_it_settles(module: str):
    known = {probe.id for probe in PROBES}
    assert functions(module)
    for function in functions(module):
        ids = getattr(function, "probe_ids", ())
        assert ids, function.__name__
        assert set(ids) <= known
        cloud = module.split("_")[2]
        assert all(item.startswith(f"{cloud}-") for item in ids)


def test_every_row_of_the_table_has_one_probe():
    settled = [item for module in MODULES for each in functions(module) for item in each.probe_ids]
    assert sorted(settled) == sorted(probe.id for probe in PROBES)


def test_the_page_of_what_is_unverified_and_the_table_have_the_same_ids():
    page = (TESTS.parent / "docs" / "unverified.md").read_text()
    rows = set(ROW.findall(page))
    assert rows == {probe.id for probe in PROBES}


def test_every_variable_is_explained_and_every_explained_one_is_read():
    page = (TESTS / "real" / "README.md").read_text()
    explained = set(VARIABLE.findall(page))
    for cloud in ("aws", "azure"):
        sources = [(TESTS / "real" / f"real_{cloud}.py"), *(TESTS / "real").glob(f"*_{cloud}_*.py")]
        text = "".join(path.read_text() for path in sources)
        read = {one or other for one, other in NAMED.findall(text)}
        names = {f"IMAGEPORT_REAL_{cloud.upper()}_{name.upper()}" for name in read}
        assert names == {name for name in explained if f"_{cloud.upper()}_" in name}
