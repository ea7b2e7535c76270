"""What an image keeps of its old machine: Provisioning Services, MCS, machine identity, SCCM."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.hives.registry_value import Value
from imageport.compose.steps.order import recommended_names
from imageport.sandbox.sample.guest_kind import GuestKind, Platform, Provisioning
from imageport.sandbox.sample.hives import merge_text

SETS = ("ControlSet001", "ControlSet002")
PVS = EngineOptions(provisioning="pvs", rearm="off")
MCS = EngineOptions(provisioning="mcs", rearm="off")
CACHES = (".vdiskcache", "vdiskdif.vhdx", ".vdiskdif.vhdx", "D-drive.vdiskcache", "mcsdif.vhdx")


@pytest.fixture
def mcs_guest(new_guest: Callable[..., Any]) -> Any:
    return new_guest(GuestKind(platform=Platform.HYPERV, provisioning=Provisioning.MCS))


def value(guest: Any, path: str, name: str) -> Value | None:
    """Return a value of SYSTEM as it is on the disk."""
    with ExitStack() as stack:
        found: Value | None = guest.registry(stack).value("SYSTEM", path, name)
    return found


def start(guest: Any, service: str, control_set: str = SETS[0]) -> int | None:
    found = value(guest, f"{control_set}\\Services\\{service}", "Start")
    return found.as_number() if found else None


def waits_for(guest: Any, control_set: str = SETS[0]) -> list[str]:
    found = value(guest, f"{control_set}\\Services\\LanmanWorkstation", "DependOnService")
    return found.as_texts() if found else []


def edit(guest: Any, text: str, hive: str = "SYSTEM") -> None:
    merge_text(guest.hive(hive), text)


def add(guest: Any, name: str, data: bytes = b"x") -> None:
    place = guest.windows.root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def reason(guest: Any, step: str) -> str:
    """Return why a step ran; "nothing to do here" when it did not."""
    (note,) = [note for note in guest.notes if note.name == step]
    return str(note.reason)


@pytest.mark.parametrize("options", [PVS, MCS], ids=["pvs", "mcs"])
def test_write_caches_and_personality_go(guest: Any, options: EngineOptions) -> None:
    for name in (*CACHES, "Personality.ini", "vdiskdif.vhdx.txt", "Users/Public/a.vdiskcache"):
        add(guest, name)
    guest.compose(options)
    left = guest.windows.names("")
    assert not {*CACHES, "Personality.ini"} & set(left)
    assert "vdiskdif.vhdx.txt" in left
    assert guest.windows.exists("Users/Public/a.vdiskcache")
    assert reason(guest, "clear_pvs_state").startswith("5 write-cache files; Personality.ini; ")


@pytest.mark.parametrize("options", [PVS, MCS], ids=["pvs", "mcs"])
def test_values_about_the_old_device_go_from_every_control_set(
    guest: Any, options: EngineOptions
) -> None:
    place = "Services\\bnistack\\PVSAgent"
    edit(guest, f'[\\{SETS[1]}\\{place}]\n"WriteCacheDrive"="D:"\n"Kept"="1"\n')
    changes = [c for c in guest.compose(options) if c.path.endswith("PVSAgent")]
    assert {(c.path.split("\\")[2], c.name) for c in changes} == {
        *((name, "DiskName") for name in SETS),
        *((name, "WriteCacheType") for name in SETS),
        (SETS[1], "WriteCacheDrive"),
    }
    assert "REG_SZ gold" in {c.before for c in changes}
    for name in SETS:
        assert value(guest, f"{name}\\{place}", "DiskName") is None
    assert value(guest, f"{SETS[1]}\\{place}", "Kept") == Value.text("1")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PVS, {"BNDevice": 2, "bnistack": 3, "bnistack6": 0, "CFsDep2": 0, "CVhdMp": 0}),
        (MCS, {"BNDevice": 4, "bnistack": 4, "bnistack6": 4, "CFsDep2": 0, "CVhdMp": 0}),
    ],
    ids=["pvs", "mcs"],
)
def test_the_target_software_rests_under_mcs_only(
    guest: Any, options: EngineOptions, expected: dict[str, int]
) -> None:
    guest.compose(options)
    for control_set in SETS:
        assert {name: start(guest, name, control_set) for name in expected} == expected


def test_a_filter_whose_file_is_gone_does_not_stop_an_mcs_machine(guest: Any) -> None:
    guest.windows.remove("Windows/System32/drivers/CFsDep2.sys")
    before = guest.judge(options=MCS)["provisioning_state"]
    assert "ControlSet001: CFsDep2 would start" in before.evidence
    guest.compose(MCS)
    assert [start(guest, "CFsDep2", name) for name in SETS] == [4, 4]


def test_a_driver_that_something_else_needs_keeps_starting(guest: Any) -> None:
    network = "{4d36e972-e325-11ce-bfc1-08002be10318}"
    edit(
        guest,
        f'[\\{SETS[0]}\\Control\\Class\\{network}]\n"UpperFilters"=hex(7):'
        "62,00,6e,00,69,00,73,00,74,00,61,00,63,00,6b,00,36,00,00,00,00,00\n\n"
        f"[\\{SETS[1]}\\Services\\Needy]\n"
        '"Start"=dword:00000002\n"DependOnService"=hex(7):'
        "62,00,6e,00,69,00,73,00,74,00,61,00,63,00,6b,00,00,00,00,00\n",
    )
    guest.compose(MCS)
    assert [start(guest, "bnistack6", name) for name in SETS] == [0, 4]
    assert [start(guest, "bnistack", name) for name in SETS] == [4, 3]


NEEDS_BNISTACK = "62,00,6e,00,69,00,73,00,74,00,61,00,63,00,6b,00,00,00,00,00"


@pytest.mark.parametrize("device", ["BNDevice", "BNDEVICE"])
def test_stacks_that_only_the_target_software_needs_rest_at_once(guest: Any, device: str) -> None:
    for name in SETS:
        edit(guest, f"[-\\{name}\\Services\\BNDevice]\n")
        for service in (device, "bnistack6"):
            path = f"\\{name}\\Services\\{service}"
            data = f'"Start"=dword:00000002\n"DependOnService"=hex(7):{NEEDS_BNISTACK}\n'
            edit(guest, f"[{path}]\n{data}")
    guest.compose(MCS)
    for name in SETS:
        assert [start(guest, s, name) for s in (device, "bnistack6", "bnistack")] == [4, 4, 4]
    assert guest.judge(options=MCS)["provisioning_state"].passed
    assert not [c for c in guest.compose(MCS) if c.step == "clear_pvs_state"]


def test_a_cache_that_fills_a_disk_is_removed_unread(guest: Any) -> None:
    size = 64 * 1024**3
    with (guest.windows.root / "vdiskdif.vhdx").open("wb") as file:
        file.truncate(size)
    (gone,) = [c for c in guest.compose(PVS) if c.path == "\\vdiskdif.vhdx"]
    assert (gone.before, gone.after) == (f"{size} bytes", "")
    assert not guest.windows.exists("vdiskdif.vhdx")


@pytest.mark.parametrize("options", [PVS, MCS], ids=["pvs", "mcs"])
def test_clearing_twice_is_clearing_once(guest: Any, options: EngineOptions) -> None:
    add(guest, "vdiskdif.vhdx")
    guest.compose(options)
    again = [c for c in guest.compose(options) if c.step == "clear_pvs_state"]
    assert again == []
    assert reason(guest, "clear_pvs_state") == "nothing to do here"


def test_the_verdict_finds_what_is_left_of_the_old_device(guest: Any) -> None:
    guest.compose(PVS)
    assert guest.judge(options=PVS)["provisioning_state"].passed
    add(guest, "vdiskdif.vhdx")
    add(guest, "Personality.ini")
    item = guest.judge(options=PVS)["provisioning_state"]
    assert item.evidence == (
        "the write cache vdiskdif.vhdx is there; Personality.ini is about a device"
    )
    item = guest.judge(Action.VERIFY, PVS)["provisioning_state"]
    assert item.evidence == "the write cache vdiskdif.vhdx is there"
    guest.windows.remove("vdiskdif.vhdx")
    assert guest.judge(Action.VERIFY, PVS)["provisioning_state"].passed


def test_the_personality_of_an_mcs_image_goes_with_its_mode(mcs_guest: Any) -> None:
    changes = mcs_guest.compose(MCS)
    (gone,) = [c for c in changes if c.path == "\\Personality.ini"]
    assert re.fullmatch(r"\d+ bytes sha256:[0-9a-f]{64}", gone.before)
    assert not gone.after
    assert not mcs_guest.windows.exists("Personality.ini")


NEEDS_BOWSER = "42,00,6f,00,77,00,73,00,65,00,72,00,00,00"


def _never_joined(guest: Any) -> None:
    edit(
        guest,
        f"[\\{SETS[0]}\\Services\\LanmanWorkstation]\n"
        f'"DependOnService"=hex(7):{NEEDS_BOWSER},00,00\n',
    )


def _disabled(guest: Any) -> None:
    edit(guest, f'[\\{SETS[0]}\\Services\\PvsVmAgent]\n"Start"=dword:00000004\n')


def _removed(guest: Any) -> None:
    edit(guest, f"[-\\{SETS[0]}\\Services\\PvsVmAgent]\n")


def _no_file(guest: Any) -> None:
    guest.windows.remove("Program Files/Citrix/PvsVm/Service/PvsVmAgent.exe")


def _names_no_file(guest: Any) -> None:
    edit(guest, f'[\\{SETS[0]}\\Services\\PvsVmAgent]\n"ImagePath"=-\n')


def _as_it_is(_guest: Any) -> None:
    """Change nothing."""


DEFAULT = ["Bowser", "MRxSmb20", "NSI"]


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (_as_it_is, [*DEFAULT, "PvsVmAgent"]),
        (_never_joined, ["Bowser", "PvsVmAgent"]),
        (_disabled, DEFAULT),
        (_removed, DEFAULT),
        (_no_file, DEFAULT),
        (_names_no_file, DEFAULT),
    ],
)
def test_the_workstation_service_waits_for_the_agent_exactly_where_it_can_start(
    mcs_guest: Any, change: Callable[[Any], None], after: list[str]
) -> None:
    change(mcs_guest)
    was_wrong = change is not _as_it_is
    assert mcs_guest.judge(options=MCS)["machine_identity"].passed is not was_wrong
    mcs_guest.compose(MCS)
    assert waits_for(mcs_guest) == after
    assert waits_for(mcs_guest, SETS[1])[:3] == DEFAULT
    item = mcs_guest.judge(options=MCS)["machine_identity"]
    assert "LanmanWorkstation" not in item.evidence
    again = [c for c in mcs_guest.compose(MCS) if c.step == "keep_machine_identity_dependency"]
    assert again == []


def test_the_verdict_names_both_ways_in_which_the_dependency_is_wrong(mcs_guest: Any) -> None:
    _never_joined(mcs_guest)
    item = mcs_guest.judge(options=MCS)["machine_identity"]
    assert "ControlSet001: LanmanWorkstation does not wait for PvsVmAgent" in item.evidence
    _no_file(mcs_guest)
    item = mcs_guest.judge(options=MCS)["machine_identity"]
    assert "ControlSet002: LanmanWorkstation waits in vain for PvsVmAgent" in item.evidence


def test_an_image_without_the_agent_is_left_alone(guest: Any) -> None:
    before = waits_for(guest)
    guest.compose(PVS)
    assert waits_for(guest) == before
    assert reason(guest, "keep_machine_identity_dependency") == "nothing to do here"


def test_an_sccm_identity_goes_only_when_asked(mcs_guest: Any) -> None:
    files = (
        "Windows/SMSCFG.INI",
        "ProgramData/Citrix/PvsAgent/LocallyPersistedData/CCMData/CCMCFG.BAK",
    )
    mcs_guest.compose(MCS)
    assert all(mcs_guest.windows.exists(path) for path in files)
    assert "forget_sccm_identity" in recommended_names("gcp")
    options = EngineOptions(provisioning="mcs", rearm="off", recommended=("forget_sccm_identity",))
    mcs_guest.compose(options)
    assert not any(mcs_guest.windows.exists(path) for path in files)
    assert reason(mcs_guest, "forget_sccm_identity") == "asked for; found SMSCFG.INI, CCMCFG.BAK"
    mcs_guest.compose(options)
    assert reason(mcs_guest, "forget_sccm_identity") == "nothing to do here"
