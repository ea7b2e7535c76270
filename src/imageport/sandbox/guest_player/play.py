"""The one boot of a composed disk, played: would it come up, and what would it leave behind?

It does not boot Windows. It decides by rules of its own (``rules.txt``), with programs that no one
here wrote (hivexregedit, ntfssecaudit, mtools, ntfs-3g), and imports nothing of the product.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.boot_rules import (
    MACHINES,
    BootJudge,
    Stop,
    booted_set,
    idle_drivers,
    load_rules,
    open_objects,
)
from imageport.sandbox.guest_player.disk import (
    DATA_TYPE,
    Partition,
    Table,
    extract,
    read_esp_file,
    read_table,
    write_back,
    write_esp_file,
)
from imageport.sandbox.guest_player.first_boot import (
    FirstBoot,
    parse_plan,
    script_fault,
    service_fault,
)
from imageport.sandbox.guest_player.plan_steps import FOLDER, Hives
from imageport.sandbox.guest_player.plug_and_play import PlugAndPlay
from imageport.sandbox.guest_player.programs import PlayerError
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.guest_player.volume import WindowsVolume, mounted

Outcome = Literal["shutdown", "bugcheck", "hang"]
_ONLINE_ALL = 1
_BOOT_STORE = "EFI/Microsoft/Boot/BCD"
_NO_SHARED_BUS = ("aws", "gcp-nvme")
"""Their disks are on NVMe, which the policy does not count as shared."""
_LOGON = "Windows is at the logon screen; nothing ends this machine"
_BITLOCKER = "BitLocker recovery: enter the recovery key for this drive"
_RESUME = "*** STOP: 0x000000A0 INTERNAL_POWER_ERROR resumed from another machine's hibernation"


@dataclass(frozen=True, slots=True)
class PlayedBoot:
    """What was on the console, and how the machine ended; ``hang`` runs until it is ended."""

    console_text: str
    outcome: Outcome


def play(
    disk: Path, firmware_serial: str, *, platform: str = "aws", work: Path | None = None
) -> PlayedBoot:
    """Boot the raw disk file once, changing it as Windows would.

    Args:
        disk: the machine's root disk, exclusively ours.
        firmware_serial: what real firmware printed for the same disk, first part of the console.
        platform: whose hardware the machine has, one of `MACHINES`.
        work: where the volume is unpacked and mounted; by default beside the disk.

    Raises:
        PlayerError: the boot could not be played on this machine (no root, a program missing).
    """
    if platform not in MACHINES:
        raise PlayerError(f"Cannot play a boot on '{platform}': its hardware is not known.")
    lines, outcome = _play(disk, platform, work or disk.parent)
    text = firmware_serial.rstrip("\n") + "\n" if firmware_serial else ""
    return PlayedBoot(text + "".join(line + "\n" for line in lines), outcome)


def _play(disk: Path, machine: str, place: Path) -> tuple[list[str], Outcome]:
    table = read_table(disk)
    esp = table.esp() if table else None
    if table is None or esp is None:
        return [load_rules("esp-file", machine)[0].screen], "hang"
    with tempfile.TemporaryDirectory(prefix=".boot-", dir=place) as work:
        folder = Path(work)
        for rule in load_rules("esp-file", machine):
            target = folder / Path(rule.subject).name
            if not read_esp_file(disk, esp, rule.subject, target):
                return [rule.screen], "hang" if rule.subject.endswith(".efi") else "bugcheck"
        for part in (part for part in table.partitions if part.kind == DATA_TYPE):
            image = folder / "windows.ntfs"
            extract(disk, part, image)
            store = folder / "BCD"
            before = store.read_bytes()
            played = _play_volume(image, store, table, part, machine)
            if played is not None:
                write_back(image, disk, part)
                if store.read_bytes() != before:
                    write_esp_file(disk, esp, _BOOT_STORE, store)
                return played
    return ["Windows Boot Manager: 0xc000000e no Windows on this disk"], "bugcheck"


def _play_volume(
    image: Path, boot_store: Path, table: Table, part: Partition, machine: str
) -> tuple[list[str], Outcome] | None:
    """Boot the Windows on a volume; None when there is none."""
    with image.open("rb") as file:
        kind = file.read(11)[3:]
    if kind == b"-FVE-FS-":
        return [_BITLOCKER], "hang"
    if kind != b"NTFS    ":
        return None
    violations = list(open_objects(image))
    with mounted(image) as volume:
        if not volume.exists("Windows\\System32"):
            return None
        judge = BootJudge(volume, table, part.guid, machine)
        screen = _screen(volume, list(judge.stops(boot_store)), violations)
        return (screen, "bugcheck") if screen else _run_windows(volume, judge, boot_store)


def _screen(volume: WindowsVolume, stops: list[Stop], violations: list[str]) -> list[str]:
    """Return the text of the screen that ends the boot, nothing when Windows comes up."""
    if (volume.read("hiberfil.sys") or b"")[:4] in {b"HIBR", b"hibr"}:
        return [_RESUME]
    if stops:
        return [stops[0].screen, *(f"guest player: {stop.evidence}" for stop in stops)]
    return [f"guest player: VIOLATION {text}" for text in violations]


def _run_windows(
    volume: WindowsVolume, judge: BootJudge, boot_store: Path
) -> tuple[list[str], Outcome]:
    system, drivers = judge.hive("SYSTEM"), judge.hive("DRIVERS")
    control_set = booted_set(system)
    lines = [f"Windows starts from {control_set}"]
    devices = {rule.subject: rule.screen for rule in load_rules("device", judge.machine)}
    ports = PlugAndPlay(volume, system, drivers, control_set)
    bound = {name: ports.bind(device) for device, name in devices.items()}
    lines += [f"{name}: {driver}" for name, driver in bound.items() if driver]
    lines += _offline_disks(system, control_set, judge.machine)
    ports.note_idle(idle_drivers(judge.machine))
    system.flush()
    plan = parse_plan(volume.read(f"{FOLDER}\\plan.txt"))
    fault = service_fault(volume, system, control_set)
    if plan is None or fault:
        return [*lines, f"guest player: {fault or 'no valid plan.txt'}", _LOGON], "hang"
    if fault := script_fault(volume, plan):
        return [*lines, f"guest player: {fault}", _LOGON], "hang"
    hives = Hives(system, judge.hive("SOFTWARE"), drivers, Hive(boot_store))
    lines += FirstBoot(volume, hives, tuple(devices)).run(plan)
    lines += [
        f"guest player: no driver for {name}"
        for device, name in devices.items()
        if not ports.is_bound(device)
    ]
    return [*lines, "Windows shut down"], "shutdown"


def _offline_disks(system: Hive, control_set: str, machine: str) -> list[str]:
    """Tell what a SAN policy does to disks beside the one that was booted from, on a shared bus."""
    parameters = system.key(f"{control_set}\\Services\\partmgr\\Parameters")
    policy = registry.dword(parameters, "sanpolicy", _ONLINE_ALL)
    if policy == _ONLINE_ALL or machine in _NO_SHARED_BUS:
        return []
    return [f"guest player: any other disk stays offline, SanPolicy is {policy}"]
