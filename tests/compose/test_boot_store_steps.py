"""The boot store's steps: EMS off while preparing and then as asked, failures ignored."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imageport.compose import boot_store as bcd
from imageport.compose.boot_store import Element
from imageport.compose.contract import Action, EngineOptions
from imageport.compose.hives.hive import Hive
from imageport.compose.steps.order import option_refusals, recommended_names
from imageport.sandbox.sample.guest_kind import Firmware, GuestKind, Provisioning
from imageport.sandbox.sample.hives import merge_text

LOADER = "{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}"
CONSOLE = ((LOADER, Element.EMS), (bcd.BOOT_MANAGER, Element.BOOT_EMS))
EVERYWHERE = (*CONSOLE, (bcd.EMS_SETTINGS, Element.BOOT_EMS))
Switches = tuple[tuple[str, Element], ...]


def store_of(guest: Any) -> Path:
    path: Path = guest.esp.root / "EFI/Microsoft/Boot/BCD"
    return path


def switch(guest: Any, switches: Switches, data: str = "01") -> None:
    text = [f'[\\{bcd.element_path(*where)}]\n"Element"=hex:{data}\n' for where in switches]
    merge_text(store_of(guest), "\n".join(text))


def switched_on(guest: Any) -> set[tuple[str, Element]]:
    with Hive(store_of(guest)) as store:
        return set(bcd.ems_switches(store))


def plan_of(guest: Any) -> list[str]:
    text = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 65536).decode()
    return [line[3:] for line in text.split("\r\n") if "set-ems" in line]


def kept(where: tuple[str, Element]) -> str:
    word = "ems" if where[1] is Element.EMS else "bootems"
    return f"required set-ems on keep {word}:{where[0].strip('{}')}"


OPTIONS = [("keep", True), ("on", True), ("off", True), ("", False), ("yes", False)]


@pytest.mark.parametrize(("value", "is_fine"), OPTIONS)
def test_the_option_is_keep_on_or_off(value: str, is_fine: bool) -> None:
    found = [refusal.reason for refusal in option_refusals(EngineOptions(serial_console=value))]
    assert found == ([] if is_fine else [f"serial_console: '{value}' is not keep, on or off."])


@pytest.mark.parametrize(
    ("before", "option", "plan"),
    [
        ((), "keep", []),
        ((), "off", []),
        ((), "on", ["required set-ems on 1"]),
        (CONSOLE, "keep", sorted(kept(where) for where in CONSOLE)),
        (EVERYWHERE, "keep", sorted(kept(where) for where in EVERYWHERE)),
        (EVERYWHERE, "off", []),
        (EVERYWHERE, "on", ["required set-ems on 1"]),
    ],
)
def test_ems_is_off_until_first_boot_ends(
    guest: Any, before: Switches, option: str, plan: list[str]
) -> None:
    switch(guest, before)
    original = store_of(guest).read_bytes()
    changes = guest.compose(EngineOptions(serial_console=option))
    quiet = [c for c in changes if c.step == "quiet_serial_port" and c.kind == "registry"]
    assert [(c.name, c.before, c.after) for c in quiet] == [
        ("Element", "REG_BINARY 01", "REG_BINARY 00")
    ] * len(before)
    assert switched_on(guest) == set()
    assert sorted(plan_of(guest)) == plan
    backup = store_of(guest).with_name("BCD.imageport-backup")
    assert (backup.read_bytes() == original) if before else not backup.exists()


def test_what_is_no_object_of_a_boot_store_has_no_switches(guest: Any) -> None:
    strange = (("two words & more", Element.EMS), ("{bootmgr}", Element.BOOT_EMS))
    for name, _ in strange:
        merge_text(store_of(guest), f"[\\Objects\\{name}]\n\n[\\Objects\\{name}\\Elements]\n")
    switch(guest, strange)
    assert switched_on(guest) == set()
    guest.compose()
    assert plan_of(guest) == []
    assert guest.judge()["serial_port"].passed


def test_google_clouds_console_is_the_second_port(guest: Any) -> None:
    guest.compose(EngineOptions(cloud="gcp", serial_console="on"))
    assert plan_of(guest) == ["required set-ems on 2"]


def test_preparing_twice_keeps_what_was_on_before_the_first_time(guest: Any) -> None:
    switch(guest, EVERYWHERE)
    original = store_of(guest).read_bytes()
    guest.compose()
    first = plan_of(guest)
    guest.compose()
    assert plan_of(guest) == first
    assert sorted(first) == sorted(kept(where) for where in EVERYWHERE)
    backup = store_of(guest).with_name("BCD.imageport-backup")
    assert backup.read_bytes() == original


VERDICTS: dict[str, tuple[str, Switches, Switches, str]] = {
    "kept as it was": ("keep", EVERYWHERE, EVERYWHERE, ""),
    "kept off": ("keep", (), (), ""),
    "not put back": ("keep", CONSOLE, CONSOLE[:1], "EMS is not on by bootems:9dea862c"),
    "put back too much": ("keep", (), CONSOLE[:1], "EMS is on by ems:4c8f1a27"),
    "off": ("off", EVERYWHERE, (), ""),
    "on after all": ("off", EVERYWHERE, CONSOLE[1:], "EMS is on by bootems:9dea862c"),
    "on": ("on", (), CONSOLE, ""),
    "on in half": ("on", (), CONSOLE[1:], "EMS is not on by ems:4c8f1a27"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_after_the_boot_ems_is_as_asked(guest: Any, name: str) -> None:
    option, before, after, problem = VERDICTS[name]
    options = EngineOptions(serial_console=option)
    switch(guest, before)
    guest.compose(options)
    assert guest.judge(options=options)["serial_port"].passed
    switch(guest, after)
    port = bcd.element_path(bcd.EMS_SETTINGS, Element.EMS_PORT)
    merge_text(store_of(guest), f'[\\{port}]\n"Element"=hex:01,00,00,00,00,00,00,00\n')
    item = guest.judge(Action.VERIFY, options)["serial_port"]
    assert item.passed is not problem.startswith("EMS")
    assert problem in item.evidence


def test_a_console_on_another_port_fails_and_ems_before_the_boot_too(guest: Any) -> None:
    options = EngineOptions(cloud="gcp", serial_console="on")
    guest.compose(options)
    switch(guest, CONSOLE)
    before = guest.judge(options=options)["serial_port"]
    assert (before.passed, "EMS is on by bootems" in before.evidence) == (False, True)
    after = guest.judge(Action.VERIFY, options)["serial_port"]
    assert (after.passed, after.evidence) == (False, "EMS is on port None, needed 2")


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_failures_are_ignored_only_when_asked_for_in_the_default_entry(
    guest: Any, cloud: str
) -> None:
    assert "ignore_boot_failures" in recommended_names(cloud)
    assert not [c for c in guest.changes(EngineOptions(cloud=cloud), apply=False) if _is_bcd(c)]
    options = EngineOptions(cloud=cloud, recommended=("ignore_boot_failures",))
    changes = [c for c in guest.compose(options) if _is_bcd(c)]
    where = f"BCD\\Objects\\{LOADER}\\Elements"
    assert [(c.path, c.before, c.after) for c in changes] == [
        (f"{where}\\16000009", "REG_BINARY 01", "REG_BINARY 00"),
        (f"{where}\\250000e0", "", "REG_BINARY 0100000000000000"),
    ]
    assert guest.judge(options=options)["boot_store"].passed
    assert not [c for c in guest.compose(options) if _is_bcd(c)]


def test_a_store_without_a_default_entry_is_left_to_the_verdict(guest: Any) -> None:
    entry = bcd.element_path(bcd.BOOT_MANAGER, Element.DEFAULT_ENTRY)
    merge_text(store_of(guest), f"[-\\{entry}]\n")
    options = EngineOptions(recommended=("ignore_boot_failures",))
    assert not [c for c in guest.compose(options) if _is_bcd(c)]
    note = next(n for n in guest.notes if n.name == "ignore_boot_failures")
    assert (note.chosen, note.reason) == (False, "nothing to do here")
    assert not guest.judge(options=options)["boot_store"].passed


def test_without_a_boot_store_there_is_nothing_to_quiet(guest: Any) -> None:
    store_of(guest).unlink()
    guest.compose()
    note = next(n for n in guest.notes if n.name == "quiet_serial_port")
    assert not note.chosen
    assert guest.judge()["serial_port"].evidence == "no boot store to look into"


def test_a_foreign_reader_sees_the_changed_store(guest: Any) -> None:
    switch(guest, EVERYWHERE)
    guest.compose(EngineOptions(recommended=("ignore_boot_failures",)))
    for identifier, element, data in (
        (LOADER, Element.BOOT_STATUS_POLICY, "01,00,00,00,00,00,00,00"),
        (LOADER, Element.EMS, "00"),
        (bcd.EMS_SETTINGS, Element.BOOT_EMS, "00"),
    ):
        key = bcd.element_path(identifier, element)
        command = ["hivexregedit", "--export", store_of(guest), f"\\{key}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert f'"Element"=hex(3):{data}' in done.stdout.splitlines()


def test_the_store_of_a_bios_image_is_changed_where_it_lies(new_guest: Callable[..., Any]) -> None:
    guest = new_guest(GuestKind(provisioning=Provisioning.MCS, firmware=Firmware.BIOS))
    store = guest.esp.root / "Boot/BCD"
    original = store.read_bytes()
    ems = bcd.element_path(bcd.EMS_SETTINGS, Element.BOOT_EMS)
    merge_text(store, f'[\\{ems}]\n"Element"=hex:01\n')
    before = store.read_bytes()
    options = EngineOptions(provisioning="mcs", recommended=("ignore_boot_failures",))
    changes = guest.compose(options)
    assert {c.step for c in changes if _is_bcd(c)} == {"quiet_serial_port", "ignore_boot_failures"}
    assert store.with_name("BCD.imageport-backup").read_bytes() == before != original
    verdict = guest.judge(options=options)
    assert verdict["serial_port"].passed
    assert verdict["boot_store"].passed, verdict["boot_store"].evidence


def _is_bcd(change: Any) -> bool:
    return bool(change.path.startswith("BCD\\"))
