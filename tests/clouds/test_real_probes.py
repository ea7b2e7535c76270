"""The probes of ``tests/real`` can be run, and the pages and the table of probes agree."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import CloudResource
from imageport.errors import CloudRefused
from tests.real.probes import PROBES
from tests.real.removal import ROUNDS, remove_all

TESTS = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (TESTS / "real").glob("test_real_*.py"))
VARIABLE = re.compile(r"IMAGEPORT_REAL_(?:AWS|AZURE|GCP)_[A-Z_]+")
NAMED = re.compile(r'(?:named\.get|named\[|needs)\(?"([a-z_]+)"|"([a-z_]+)" in \w+\.named')
ROW = re.compile(r"`((?:aws|azure|gcp)-[a-z0-9-]+)`")


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
    for cloud in ("aws", "azure", "gcp"):
        sources = [(TESTS / "real" / f"real_{cloud}.py"), *(TESTS / "real").glob(f"*_{cloud}_*.py")]
        text = "".join(path.read_text() for path in sources)
        read = {one or other for one, other in NAMED.findall(text)}
        names = {f"IMAGEPORT_REAL_{cloud.upper()}_{name.upper()}" for name in read}
        assert names == {name for name in explained if f"_{cloud.upper()}_" in name}


class StubbornCloud:
    """Refuses the first ``refusals`` deletions of its group; everything else goes at once."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.left = [CloudResource("group", "g-1", {}), CloudResource("disk", "d-1", {})]

    def list_ours(self, _site: str) -> list[CloudResource]:
        return list(self.left)

    def delete_resource(self, resource: CloudResource) -> str:
        if resource.kind == "group" and self.refusals:
            self.refusals -= 1
            raise CloudRefused("Cannot delete 'g-1': it is in use.")
        self.left.remove(resource)
        return ""


def test_what_cannot_be_deleted_at_once_is_tried_again():
    cloud: Any = StubbornCloud(ROUNDS - 1)
    remove_all(cloud, "probe")
    assert cloud.left == []


def test_what_cannot_be_deleted_at_all_keeps_nothing_else_and_is_named():
    cloud: Any = StubbornCloud(ROUNDS)
    with pytest.raises(ExceptionGroup, match="site 'probe'") as caught:
        remove_all(cloud, "probe")
    assert [item.id for item in cloud.left] == ["g-1"]
    assert caught.value.exceptions[0].__notes__ == ["group g-1 is left"]
