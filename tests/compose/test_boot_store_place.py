"""The boot store of the firmware that starts the disk is taken, and kept beside it as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose import boot_store as bcd
from imageport.compose.boot_store import Element
from imageport.compose.contract import EngineOptions
from imageport.compose.hives.base_block import HEADER_BYTES, HiveHeader
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import copy_hives
from imageport.sandbox.sample.faults import leave_hive_behind
from imageport.sandbox.sample.guest_kind import Firmware, GuestKind

STORES = {Firmware.UEFI: "EFI/Microsoft/Boot/BCD", Firmware.BIOS: "Boot/BCD"}
OPTIONS = EngineOptions(provisioning="mcs", rearm="off", recommended=("ignore_boot_failures",))
LOADER = "{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}"
LATE = "Objects\\{1b2c3d4e-0000-4000-8000-00000000cafe}\\Description"
BACKUP = ".imageport-backup"


def store_of(guest: Any, firmware: Firmware) -> Path:
    return Path(guest.esp.root / STORES[firmware])


def ignores_failures(store: Path) -> bool:
    with Hive(store) as hive:
        found = bcd.element_number(hive, LOADER, Element.BOOT_STATUS_POLICY)
    return found == bcd.IGNORE_ALL_FAILURES


@pytest.mark.parametrize("firmware", list(STORES))
def test_with_both_stores_there_the_firmwares_own_is_changed_and_judged(
    new_guest: Callable[..., Any], firmware: Firmware
) -> None:
    guest = new_guest(GuestKind(firmware=firmware))
    (other,) = set(STORES) - {firmware}
    wanted, idle = store_of(guest, firmware), store_of(guest, other)
    idle.parent.mkdir(parents=True)
    idle.write_bytes(b"no hive at all")
    original = wanted.read_bytes()
    guest.compose(OPTIONS)
    assert ignores_failures(wanted)
    assert wanted.with_name("BCD" + BACKUP).read_bytes() == original
    assert idle.read_bytes() == b"no hive at all"
    assert [path.name for path in idle.parent.iterdir()] == ["BCD"]
    item = guest.judge(options=OPTIONS)["boot_store"]
    assert item.passed, item.evidence


@pytest.mark.parametrize("firmware", list(STORES))
def test_the_other_firmwares_store_alone_is_none(
    new_guest: Callable[..., Any], firmware: Firmware
) -> None:
    guest = new_guest(GuestKind(firmware=firmware))
    (other,) = set(STORES) - {firmware}
    idle = store_of(guest, other)
    idle.parent.mkdir(parents=True)
    store_of(guest, firmware).rename(idle)
    found = copy_hives(guest.windows, guest.scratch, guest.esp, guest.table.firmware)
    assert "BCD" not in found.copies
    place = STORES[firmware].replace("/", "\\")
    assert guest.judge(options=OPTIONS)["boot_store"].evidence == f"\\{place} is missing"


def test_of_a_store_with_waiting_logs_the_backup_is_what_they_make_of_it(guest: Any) -> None:
    store = store_of(guest, Firmware.UEFI)
    leave_hive_behind(
        store, f'[\\{LATE.rpartition(chr(92))[0]}]\n\n[\\{LATE}]\n"Type"=dword:10200003\n'
    )
    assert HiveHeader.parse(store.read_bytes()[:HEADER_BYTES]).is_dirty
    guest.compose(OPTIONS)
    backup = store.with_name("BCD" + BACKUP)
    kept = backup.read_bytes()
    assert not HiveHeader.parse(kept[:HEADER_BYTES]).is_dirty
    assert not ignores_failures(backup)
    with ExitStack() as stack:
        hives = [stack.enter_context(Hive(path)) for path in (backup, store)]
        assert [hive.value(LATE, "Type") is not None for hive in hives] == [True, True]
    guest.compose(EngineOptions(rearm="off", serial_console="off"))
    assert backup.read_bytes() == kept
