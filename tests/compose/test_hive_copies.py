"""Dirty hives of a guest: brought up to date and written back, or refused with what is missing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import copy_hives, open_copies
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.refusals import hive_refusals
from imageport.errors import EngineFailed
from imageport.sandbox.sample.faults import leave_hive_behind
from imageport.sandbox.sample.hive_logs import (
    PAGE,
    log_entry,
    new_log,
    with_sequences,
)

KEY = "Imageport Test"


def leave_behind(hive: Path) -> None:
    leave_hive_behind(hive, f'[\\{KEY}]\n"Name"="from the log"')


def boot_store(guest: Any) -> Path:
    return Path(guest.esp.root / "EFI/Microsoft/Boot/BCD")


def hive_of(guest: Any, name: str) -> Path:
    return boot_store(guest) if name == "BCD" else Path(guest.hive(name))


def replays(changes: list[Any]) -> list[Any]:
    return [change for change in changes if change.step == "replay_hive_logs"]


def damage(guest: Any) -> list[tuple[str, str]]:
    refusals = hive_refusals(copy_hives(guest.windows, guest.scratch, guest.esp))
    assert all(item.hint for item in refusals)
    return [(item.code, item.reason) for item in refusals]


def test_hives_that_windows_wrote_out_are_no_matter(guest: Any) -> None:
    assert damage(guest) == []
    assert replays(guest.compose()) == []
    note = next(note for note in guest.notes if note.name == "replay_hive_logs")
    assert (note.chosen, note.reason) == (False, "nothing to do here")


PLACES = {
    "SYSTEM": "\\Windows\\System32\\config\\SYSTEM",
    "SOFTWARE": "\\Windows\\System32\\config\\SOFTWARE",
    "DRIVERS": "\\Windows\\System32\\config\\DRIVERS",
    "BCD": "boot:\\EFI\\Microsoft\\Boot\\BCD",
}


@pytest.mark.parametrize("name", PLACES)
def test_a_dirty_hive_is_written_back_with_what_its_log_held(guest: Any, name: str) -> None:
    hive = hive_of(guest, name)
    leave_behind(hive)
    header = HiveHeader.parse(hive.read_bytes()[:512])
    assert damage(guest) == []
    (change,) = replays(guest.compose())
    assert (change.kind, change.tier, change.path) == ("file", "required", PLACES[name])
    assert change.before == f"sequence {header.sequence1}/{header.sequence2}"
    last = header.sequence1 + 1
    assert change.after.startswith(f"2 entries of .LOG1 and .LOG2 up to {last}; ")
    assert "bytes sha256:" in change.after
    data = hive.read_bytes()
    written = HiveHeader.parse(data[:512])
    assert (written.is_dirty, written.problem, hive_problem(data)) == (False, "", "")
    assert written.sequence1 > last, "the log's entry must not apply again"
    with Hive(hive) as opened:
        value = opened.value(KEY, "Name")
    assert value is not None
    assert value.as_text() == "from the log"
    assert guest.judge()["hives"].passed
    assert replays(guest.changes(EngineOptions(), apply=False)) == []


def test_looking_replays_in_memory_and_leaves_the_guest_alone(guest: Any) -> None:
    hive = hive_of(guest, "SOFTWARE")
    leave_behind(hive)
    before = hive.read_bytes()
    with ExitStack() as stack:
        registry = guest.registry(stack)
        assert registry.text("SOFTWARE", KEY, "Name") == "from the log"
    assert len(replays(guest.changes(EngineOptions(), apply=False))) == 1
    assert hive.read_bytes() == before
    assert not guest.judge(Action.VERIFY)["hives"].passed


@pytest.mark.parametrize("name", PLACES)
def test_a_dirty_hive_without_logs_is_refused_and_may_be_looked_into(guest: Any, name: str) -> None:
    hive = hive_of(guest, name)
    hive.write_bytes(with_sequences(hive.read_bytes(), 99, 98))
    ((code, reason),) = damage(guest)
    assert code == "dirty_hive"
    assert reason == (
        f"Hive {name} has sequence numbers 99 and 98: changes still lie in its logs, and there "
        "are no transaction logs beside it."
    )
    found = copy_hives(guest.windows, guest.scratch, guest.esp)
    with open_copies(found, writable=False) as registry:
        assert registry.replayed == {}
    with pytest.raises(EngineFailed, match="sequence numbers 99 and 98"):
        open_copies(found, writable=True).__enter__()


def test_a_log_that_does_not_help_is_named(guest: Any) -> None:
    hive = hive_of(guest, "SYSTEM")
    leave_behind(hive)
    log = hive.with_name("SYSTEM.LOG1")
    log.write_bytes(log.read_bytes()[:-512])
    hive.with_name("SYSTEM.LOG2").write_bytes(b"MZ" + bytes(600))
    ((code, reason),) = damage(guest)
    assert code == "dirty_hive"
    assert ".LOG2 found signature 4d5a0000" in reason
    assert "no whole log entry follows sequence number" in reason


def test_a_base_block_is_recovered_from_a_log_or_refused(guest: Any) -> None:
    hive = hive_of(guest, "SOFTWARE")
    leave_behind(hive)
    hive.write_bytes(bytes(512) + hive.read_bytes()[512:])
    assert damage(guest) == []
    for suffix in (".LOG1", ".LOG2"):
        hive.with_name("SOFTWARE" + suffix).unlink()
    ((code, reason),) = damage(guest)
    assert code == "bad_hive"
    assert "found signature 00000000, needed 'regf' at offset 0" in reason


@pytest.mark.parametrize("name", PLACES)
def test_a_damaged_hive_is_refused_before_libhivex_sees_it(guest: Any, name: str) -> None:
    hive = hive_of(guest, name)
    data = hive.read_bytes()
    hive.write_bytes(data[: 2 * PAGE] if len(data) > 2 * PAGE else data[:PAGE])
    ((code, reason),) = damage(guest)
    assert code == "bad_hive"
    assert reason.startswith(f"Hive {name}: found")
    found = copy_hives(guest.windows, guest.scratch, guest.esp)
    assert not found.can_be_opened
    with pytest.raises(EngineFailed, match=f"Cannot open the registry: Hive {name}"):
        open_copies(found, writable=False).__enter__()


def test_a_hive_torn_in_the_middle_is_refused_with_the_place(guest: Any) -> None:
    hive = hive_of(guest, "SYSTEM")
    data = hive.read_bytes()
    middle = len(data) // 2 // PAGE * PAGE
    hive.write_bytes(data[:middle] + bytes(PAGE) + data[middle + PAGE :])
    ((code, reason),) = damage(guest)
    assert code == "bad_hive"
    assert "at offset" in reason
    assert "found" in reason
    assert "needed" in reason


def test_a_hive_that_its_own_log_damages_is_refused(guest: Any) -> None:
    hive = hive_of(guest, "SOFTWARE")
    data = hive.read_bytes()
    first = HiveHeader.parse(data[:512]).sequence1 + 1
    entry = log_entry(first, len(data) - PAGE, [(0, bytes(PAGE))])
    hive.with_name("SOFTWARE.LOG2").write_bytes(new_log([entry], sequence=first, like=data))
    hive.write_bytes(with_sequences(data, first, first - 1))
    ((code, reason),) = damage(guest)
    assert code == "bad_hive"
    assert "after its logs were applied: Bad hive bin at offset 4096" in reason


def test_a_missing_hive_is_refused_but_for_drivers(guest: Any) -> None:
    hive_of(guest, "DRIVERS").unlink()
    assert damage(guest) == []
    hive_of(guest, "SOFTWARE").unlink()
    assert damage(guest) == [("bad_hive", "Hive SOFTWARE is missing.")]


def test_a_hive_too_large_to_load_is_not_read(guest: Any) -> None:
    with hive_of(guest, "SOFTWARE").open("r+b") as file:
        file.truncate(1024**3 + PAGE)
    ((code, reason),) = damage(guest)
    assert code == "bad_hive"
    assert "a limit is 1 GiB" in reason
    assert not (guest.scratch / "SOFTWARE").exists()
