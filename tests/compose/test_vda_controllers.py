"""The controllers that a VDA registers with: in each view of the registry, and none cached."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.sandbox.sample.hives import merge_text, with_parents

NEW = EngineOptions(rearm="off", list_of_ddcs=("ddc.new.example",))
OLD = EngineOptions(rearm="off")
CACHE = "ProgramData/Citrix/PvsAgent/LocallyPersistedData/BrokerAgentInfo"
CACHED = ("SavedListOfDdcsSids.xml", "savedlistofddcs1.XML", "SavedListOfSids.xml")
OTHERS = ("SavedListOfDdcsSids.xml.txt", "BrokerAgentInfo.xml")
VIEW_OF_32_BITS = "WOW6432Node\\Citrix\\VirtualDesktopAgent"


def cache(guest: Any, *names: str) -> None:
    folder = guest.windows.root / CACHE
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"<controllers/>")


@pytest.mark.parametrize(("options", "gone"), [(NEW, CACHED), (OLD, ())], ids=["new", "as it is"])
def test_cached_controllers_go_where_new_ones_are_named(
    guest: Any, options: EngineOptions, gone: tuple[str, ...]
) -> None:
    cache(guest, *CACHED, *OTHERS)
    changes = [c for c in guest.compose(options) if "BrokerAgentInfo" in c.path]
    assert {c.path.rpartition("\\")[2] for c in changes} == set(gone)
    assert guest.windows.names(CACHE) == sorted({*CACHED, *OTHERS} - set(gone))
    assert guest.judge(options=options)["vda"].passed


def test_cached_controllers_fail_the_verdict_before_the_boot_and_are_told_after(
    guest: Any,
) -> None:
    guest.compose(NEW)
    cache(guest, CACHED[0])
    before = guest.judge(options=NEW)["vda"]
    assert not before.passed
    assert f"{CACHE}/{CACHED[0]} puts other controllers in place of these" in before.evidence
    after = guest.judge(Action.VERIFY, NEW)["vda"]
    assert after.passed
    assert CACHED[0] in after.evidence


@pytest.mark.parametrize("is_there", [True, False])
def test_the_view_of_32_bits_is_set_where_it_is(guest: Any, is_there: bool) -> None:
    if is_there:
        text = f'[\\{VIEW_OF_32_BITS}]\n"ListOfDDCs"="ddc.old.example"\n'
        merge_text(guest.hive("SOFTWARE"), with_parents("", text))
        assert "'ddc.old.example', needed" in guest.judge(options=NEW)["vda"].evidence
    guest.compose(NEW)
    with ExitStack() as stack:
        found = guest.registry(stack).text("SOFTWARE", VIEW_OF_32_BITS, "ListOfDDCs")
    assert found == ("ddc.new.example" if is_there else "")
    assert guest.judge(options=NEW)["vda"].passed
