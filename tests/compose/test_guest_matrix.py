"""Guests of every system, platform, provisioning and firmware, composed for every cloud.

Pairs, not the whole product: every value of one trait meets every cloud, and all platforms meet
both ways of provisioning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.hives.hive import Hive, Key
from imageport.sandbox.sample.guest_kind import (
    Firmware,
    GuestKind,
    Platform,
    Provisioning,
    System,
)

UEFI, BIOS = Firmware.UEFI, Firmware.BIOS
PVS, MCS, PLAIN = Provisioning.PVS, Provisioning.MCS, Provisioning.NONE
CASES: tuple[tuple[GuestKind, str], ...] = (
    (GuestKind(System.WIN10, Platform.VMWARE, PVS, UEFI), "aws"),
    (GuestKind(System.WIN11, Platform.XENSERVER, PVS, UEFI), "azure"),
    (GuestKind(System.SERVER2016, Platform.NUTANIX, PVS, UEFI), "gcp"),
    (GuestKind(System.SERVER2019, Platform.HYPERV, PVS, UEFI), "aws"),
    (GuestKind(System.SERVER2022, Platform.KVM, PVS, UEFI), "azure"),
    (GuestKind(System.SERVER2025, Platform.PARALLELS, PVS, UEFI), "gcp"),
    (GuestKind(System.SERVER2025, Platform.NONE, PVS, UEFI), "azure"),
    (GuestKind(System.WIN10, Platform.XENSERVER, MCS, BIOS), "gcp"),
    (GuestKind(System.WIN11, Platform.VMWARE, MCS, UEFI), "gcp"),
    (GuestKind(System.SERVER2016, Platform.VMWARE, MCS, BIOS), "aws"),
    (GuestKind(System.SERVER2019, Platform.NUTANIX, MCS, UEFI), "azure"),
    (GuestKind(System.SERVER2022, Platform.HYPERV, MCS, UEFI), "gcp"),
    (GuestKind(System.SERVER2022, Platform.KVM, MCS, UEFI), "gcp"),
    (GuestKind(System.WIN11, Platform.NONE, PLAIN, UEFI), "aws"),
    (GuestKind(System.WIN10, Platform.PARALLELS, MCS, BIOS), "aws"),
    (GuestKind(System.WIN10, Platform.HYPERV, PVS, UEFI), "azure"),
)
REMOVAL = {
    Platform.VMWARE: "remove_vmware_tools",
    Platform.XENSERVER: "remove_xenserver_tools",
    Platform.NUTANIX: "remove_nutanix_tools",
    Platform.PARALLELS: "remove_parallels_tools",
    Platform.KVM: "remove_old_virtio",
}

Maker = Callable[..., Any]


def options_for(kind: GuestKind, cloud: str) -> EngineOptions:
    provisioning = "pvs" if kind.provisioning is PVS else "mcs"
    return EngineOptions(cloud=cloud, provisioning=provisioning, list_of_ddcs=("ddc.new.example",))


def content(guest: Any) -> dict[str, str]:
    """Every file by digest and every key of the hives by its values; hives not by bytes."""
    found: dict[str, str] = {}
    for root in (guest.windows.root, guest.esp.root):
        for path in sorted(root.rglob("*")):
            name = f"{root.name}/{path.relative_to(root)}"
            if path.name in {"SYSTEM", "SOFTWARE", "DRIVERS", "BCD"}:
                with Hive(path) as hive:
                    found.update(_keys(hive.root, f"{name}:"))
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[name] = "folder"
    return found


def _keys(key: Key, path: str) -> dict[str, str]:
    values = sorted((name, value.render()) for name, value in key.values().items())
    found = {path: repr(values)}
    for child in key.children():
        found.update(_keys(child, f"{path}\\{child.name}"))
    return found


@pytest.mark.parametrize(("kind", "cloud"), CASES, ids=[f"{k}-to-{c}" for k, c in CASES])
def test_a_guest_is_ready_after_composing_and_composing_again_changes_nothing(
    new_guest: Maker, kind: GuestKind, cloud: str
) -> None:
    guest = new_guest(kind)
    guest.bring_packages_of(cloud)
    options = options_for(kind, cloud)
    planned = guest.changes(options, apply=False)
    assert guest.compose(options) == planned
    failed = [item for item in guest.judge(options=options).values() if not item.passed]
    assert failed == []
    ran = {note.name for note in guest.notes if note.chosen and note.name in REMOVAL.values()}
    assert ran == ({REMOVAL[kind.platform]} if kind.platform in REMOVAL else set())
    once = content(guest)
    guest.compose(options)
    assert content(guest) == once
    assert guest.judge(Action.COMPOSE, options) == guest.judge(options=options)


def test_the_cases_meet_every_trait_with_every_cloud_that_takes_it() -> None:
    kinds = {kind for kind, _ in CASES}
    assert {kind.system for kind in kinds} == set(System)
    assert {kind.platform for kind in kinds} == set(Platform)
    assert {kind.provisioning for kind in kinds} == set(Provisioning)
    assert {kind.firmware for kind in kinds} == set(Firmware)
    for cloud in ("aws", "azure", "gcp"):
        met = {kind.platform for kind, name in CASES if name == cloud}
        assert len(met) >= 4, cloud
        assert {PVS, MCS} <= {kind.provisioning for kind, name in CASES if name == cloud}
