"""What firmware starts: the fallback loader, put in place, and the verdict on either firmware."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.recorder import Recorder
from imageport.compose.step import Facts
from imageport.compose.steps.boot.place_fallback_loader import PlaceFallbackLoader
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.guest_kind import Firmware, GuestKind
from imageport.sandbox.sample.portable_executable import minimal_pe

LOADER = "{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}"
STORE = "EFI/Microsoft/Boot/BCD"
WINDOWS_AT = recipe.WINDOWS_BESIDE_IT.first


@pytest.fixture
def bios(new_guest: Callable[..., Any]) -> Any:
    return new_guest(GuestKind(firmware=Firmware.BIOS))


def without(path: str) -> Callable[[Any], None]:
    return lambda guest: (guest.windows.root / path).unlink()


def loader_facts(guest: Any, stack: ExitStack) -> Facts:
    facts: Facts = guest.facts(guest.registry(stack))
    return facts


ESP_LOADER = "EFI/Boot/bootx64.efi"
MANAGER_ON_ESP = "EFI/Microsoft/Boot/bootmgfw.efi"


def _put(root: Path, path: str, data: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


def test_a_loader_that_is_there_stays(guest: Any) -> None:
    with ExitStack() as stack:
        assert PlaceFallbackLoader().reason(loader_facts(guest, stack)) == ""
    assert not [one for one in guest.compose() if one.step == "place_fallback_loader"]


@pytest.mark.parametrize("place", ["esp", "windows"])
def test_a_missing_loader_is_the_boot_manager_of_the_nearest_place(guest: Any, place: str) -> None:
    (guest.esp.root / ESP_LOADER).unlink()
    own = minimal_pe("bootmgfw.efi", "10.0.1.1", company="Microsoft")
    kept = minimal_pe("bootmgfw.efi", "10.0.2.2", company="Microsoft")
    _put(guest.windows.root, "Windows/Boot/EFI/bootmgfw.efi", kept)
    if place == "esp":
        _put(guest.esp.root, MANAGER_ON_ESP, own)
    else:
        (guest.esp.root / MANAGER_ON_ESP).unlink(missing_ok=True)
    made = [one for one in guest.compose() if one.step == "place_fallback_loader"]
    assert [one.path for one in made] == ["boot:\\EFI\\Boot\\bootx64.efi"]
    assert (guest.esp.root / ESP_LOADER).read_bytes() == (own if place == "esp" else kept)
    assert guest.judge()["boot_loader"].passed
    assert not [one for one in guest.compose() if one.step == "place_fallback_loader"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "does not exist"),
        (b"#!/bin/sh\n".ljust(200), "is no program: it does not begin with 'MZ'"),
        (minimal_pe("bootmgfw.exe", "1.0.0.0", company="x"), "is no EFI application: subsystem 3"),
    ],
)
def test_without_a_boot_manager_the_image_is_refused_with_both_places(
    guest: Any, data: bytes | None, why: str
) -> None:
    (guest.esp.root / ESP_LOADER).unlink()
    (guest.esp.root / MANAGER_ON_ESP).unlink(missing_ok=True)
    source = guest.windows.root / "Windows/Boot/EFI/bootmgfw.efi"
    source.unlink()
    if data is not None:
        source.write_bytes(data)
    with ExitStack() as stack:
        found = PlaceFallbackLoader().guest_problems(loader_facts(guest, stack))
    assert [one.code for one in found] == ["esp_loader_missing"]
    assert f"\\{MANAGER_ON_ESP}".replace("/", "\\") + " does not exist and " in found[0].reason
    assert why in found[0].reason
    assert "bcdboot" in found[0].hint


def test_a_boot_manager_without_end_is_not_taken(guest: Any) -> None:
    (guest.esp.root / ESP_LOADER).unlink()
    _put(guest.esp.root, MANAGER_ON_ESP, minimal_pe("bootmgfw.efi", "10.0.1.1", company="x"))
    with (guest.esp.root / MANAGER_ON_ESP).open("r+b") as file:
        file.truncate(1 << 40)
    (guest.windows.root / "Windows/Boot/EFI/bootmgfw.efi").unlink()
    with ExitStack() as stack:
        (found,) = PlaceFallbackLoader().guest_problems(loader_facts(guest, stack))
    assert "bootmgfw.efi is larger than 67108864 bytes" in found.reason


def test_a_bios_disk_needs_no_efi_loader(bios: Any) -> None:
    with ExitStack() as stack:
        facts = loader_facts(bios, stack)
        assert PlaceFallbackLoader().reason(facts) == ""
        assert PlaceFallbackLoader().guest_problems(facts) == []


# The verdict on machines that boot by BIOS


MCS = EngineOptions(provisioning="mcs")


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (MCS, True),
        (replace(MCS, cloud="gcp"), True),
        (replace(MCS, cloud="azure"), False),
        (EngineOptions(), False),
    ],
)
def test_bios_fits_a_machine_catalog_outside_azure_only(
    bios: Any, options: EngineOptions, fits: bool
) -> None:
    items = bios.judge(options=options)
    assert items["firmware"].passed == fits
    assert items["boot_loader"].passed
    assert items["boot_store"].passed, items["boot_store"].evidence


def _other_partition(guest: Any) -> None:
    table = guest.table
    first, windows = table.partitions
    guest.table = replace(table, partitions=(first, replace(windows, first_byte=4096 * 512)))


@pytest.mark.parametrize(
    ("fault", "item", "evidence"),
    [
        (lambda guest: (guest.esp.root / "bootmgr").unlink(), "boot_loader", "bootmgr is missing"),
        (lambda guest: (guest.esp.root / "bootmgr").write_bytes(b""), "boot_loader", "is empty"),
        (lambda guest: (guest.esp.root / "Boot/BCD").unlink(), "boot_store", "\\Boot\\BCD is miss"),
        (_other_partition, "boot_store", f"the loader device names partition offset:{WINDOWS_AT}"),
        (without("Windows/System32/winload.exe"), "boot_store", "winload.exe is missing"),
    ],
)  # fmt: skip
def test_a_fault_of_a_bios_guest_fails_its_item(
    bios: Any, fault: Callable[[Any], None], item: str, evidence: str
) -> None:
    fault(bios)
    found = bios.judge(options=MCS)[item]
    assert not found.passed
    assert evidence in found.evidence


@pytest.mark.parametrize(
    ("firmware", "is_alone", "passes"),
    [(Firmware.UEFI, False, False), (Firmware.BIOS, False, False), (Firmware.BIOS, True, True)],
    ids=["EFI partition", "System Reserved", "one partition"],
)
def test_a_loader_where_the_boot_manager_started_must_be_on_windows_own_partition(
    new_guest: Callable[..., Any], firmware: Firmware, is_alone: bool, passes: bool
) -> None:
    guest = new_guest(GuestKind(firmware=firmware))
    if is_alone:
        windows = replace(guest.table.partitions[-1], is_active=True)
        guest.table = replace(guest.table, partitions=(windows,))
    started_from = bytes(16) + struct.pack("<IIII", 5, 0, 72, 0) + bytes(56)
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        recorder = Recorder(registry, guest.windows, guest.esp)
        path = f"Objects\\{LOADER}\\Elements\\11000001"
        recorder.set_value("BCD", path, "Element", Value(Kind.BINARY, started_from))
        registry.hives["BCD"].commit()
        store = STORE if firmware is Firmware.UEFI else "Boot/BCD"
        guest.esp.rewrite(store, registry.hives["BCD"].path)
    item = guest.judge(options=MCS)["boot_store"]
    assert item.passed == passes, item.evidence
    assert passes or "where the boot manager lies, not Windows" in item.evidence


def test_a_loader_for_the_other_firmware_is_told(guest: Any) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        recorder = Recorder(registry, guest.windows, guest.esp)
        path = f"Objects\\{LOADER}\\Elements\\12000002"
        recorder.set_value("BCD", path, "Element", Value.text("\\Windows\\system32\\winload.exe"))
        registry.hives["BCD"].commit()
        guest.esp.rewrite(STORE, registry.hives["BCD"].path)
    found = guest.judge()["boot_store"]
    assert "is for another firmware" in found.evidence
