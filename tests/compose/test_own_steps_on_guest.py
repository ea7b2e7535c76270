"""The operator's own steps on a guest: what they change, under which names, and what is refused."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions, OwnStep, Refusal
from imageport.compose.first_boot.plan import PROGRAMS
from imageport.compose.steps.order import step_refusals
from imageport.compose.volumes.descriptors import Access

HEAD = "Windows Registry Editor Version 5.00\n\n"
SETS = ("ControlSet001", "ControlSet002")
SECRET = "Tr0ub4dor-and-3"
SITE = "HKLM\\SOFTWARE\\Site"


def put(guest: Any, path: str, content: str) -> None:
    place = guest.payload / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode())


def options(*steps: OwnStep, **others: Any) -> EngineOptions:
    return EngineOptions(own_steps=steps, drivers=("ena",), **others)


def own_changes(changes: list[Any]) -> list[tuple[str, str, str, str, str]]:
    own = ("own_steps_before", "own_steps_after")
    return [(c.step, c.path, c.name, c.before, c.after) for c in changes if c.step.startswith(own)]


REGISTRY: dict[str, tuple[str, list[tuple[str, str, str, str]]]] = {
    "a value, new": (
        '[HKEY_LOCAL_MACHINE\\SOFTWARE\\Site]\n"Level"=dword:00000003\n',
        [(SITE, "", "", "(empty)"), (SITE, "Level", "", "REG_DWORD 3")],
    ),
    "in every control set": (
        '[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\W32Time]\n"Start"=dword:00000002\n',
        [
            (f"HKLM\\SYSTEM\\{name}\\Services\\W32Time", "Start", "REG_DWORD 3", "REG_DWORD 2")
            for name in SETS
        ],
    ),
    "in one control set": (
        '[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet002\\Services\\W32Time]\n"Start"=dword:00000002\n',
        [
            (
                "HKLM\\SYSTEM\\ControlSet002\\Services\\W32Time",
                "Start",
                "REG_DWORD 3",
                "REG_DWORD 2",
            )
        ],
    ),
    "a value goes": (
        (
            "[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\W32Time\\Parameters]\n"
            '"NtpServer"=-\n'
        ),
        [
            (
                f"HKLM\\SYSTEM\\{name}\\Services\\W32Time\\Parameters",
                "NtpServer",
                "REG_SZ time.windows.com,0x9",
                "",
            )
            for name in SETS
        ],
    ),
    "a key goes": (
        "[-HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet002\\Services\\W32Time\\Parameters]\n",
        [
            (
                "HKLM\\SYSTEM\\ControlSet002\\Services\\W32Time\\Parameters",
                "",
                "Type=REG_SZ NT5DS; NtpServer=REG_SZ time.windows.com,0x9",
                "",
            )
        ],
    ),
    "as it is": (
        '[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\W32Time]\n"Start"=dword:00000003\n',
        [],
    ),
    "not there anyway": ("[-HKEY_LOCAL_MACHINE\\SOFTWARE\\Nobody\\Here]\n", []),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_a_registry_text_makes_these_changes_once(guest: Any, name: str) -> None:
    text, expected = REGISTRY[name]
    put(guest, "own/site.reg", HEAD + text)
    chosen = options(OwnStep("offline_before", "own/site.reg"))
    found = own_changes(guest.changes(chosen, apply=True))
    assert [change[0] for change in found] == ["own_steps_before own/site.reg"] * len(expected)
    assert sorted(change[1:] for change in found) == sorted(expected)


def test_a_registry_text_for_the_end_has_the_last_word(guest: Any) -> None:
    dhcp = (
        '[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Dhcp]\n"Start"=dword:00000003\n'
    )
    put(guest, "before.reg", HEAD + dhcp)
    guest.compose(options(OwnStep("offline_before", "before.reg")))
    with ExitStack() as stack:
        assert guest.registry(stack).start_of("ControlSet001", "Dhcp") == 2
    guest.compose(options(OwnStep("offline_after", "before.reg")))
    with ExitStack() as stack:
        assert guest.registry(stack).start_of("ControlSet001", "Dhcp") == 3


FILES = {
    "remove": [{"path": "Windows/System32/drivers/etc/services"}],
    "add": [
        {"path": "Program Files/Site/agent.ini", "from": "own/agent.ini", "access": "users-read"},
        {"path": "Site/key.txt", "from": "own/key.txt", "access": "administrators-only"},
        {"path": "Windows/System32/drivers/etc/hosts", "from": "own/hosts", "access": "users-read"},
    ],
}


def with_files(guest: Any) -> EngineOptions:
    put(guest, "own/files.json", json.dumps(FILES))
    put(guest, "own/agent.ini", "[agent]\r\n")
    put(guest, "own/key.txt", SECRET)
    put(guest, "own/hosts", "10.0.0.1 licence\r\n")
    (guest.windows.root / "Windows/System32/drivers/etc/services").write_bytes(b"old")
    return options(OwnStep("offline_after", "own/files.json"))


def test_a_file_list_adds_replaces_and_removes_with_explicit_access(guest: Any) -> None:
    chosen = with_files(guest)
    descriptor = guest.windows.descriptor("Windows/System32/drivers/etc/hosts")
    changes = own_changes(guest.compose(chosen))
    root = guest.windows.root
    assert (root / "Program Files/Site/agent.ini").read_bytes() == b"[agent]\r\n"
    assert (root / "Windows/System32/drivers/etc/hosts").read_bytes() == b"10.0.0.1 licence\r\n"
    assert not (root / "Windows/System32/drivers/etc/services").exists()
    for path, access in (
        ("Program Files/Site/agent.ini", Access.USERS_READ),
        ("Site/key.txt", Access.ADMINISTRATORS_ONLY),
    ):
        assert guest.windows.descriptor(path) == access.descriptor(is_folder=False)
    assert guest.windows.descriptor("Site") == Access.ADMINISTRATORS_ONLY.descriptor(is_folder=True)
    assert guest.windows.descriptor("Windows/System32/drivers/etc/hosts") == descriptor
    assert {step for step, *_ in changes} == {"own_steps_after own/files.json"}
    assert SECRET not in repr(changes)
    assert own_changes(guest.compose(chosen)) == []


def test_steps_are_named_in_the_plan_and_composing_twice_is_as_once(guest: Any) -> None:
    text = "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Site]\n" + '"a"="b"\n"c"=hex(7):00,00\n'
    put(guest, "own/a.reg", HEAD + text)
    put(guest, "own/b.reg", HEAD + text.replace("Site", "Other"))
    chosen = options(OwnStep("offline_before", "own/a.reg"), OwnStep("offline_before", "own/b.reg"))
    first = own_changes(guest.compose(chosen))
    note = next(note for note in guest.notes if note.name == "own_steps_before")
    assert (note.chosen, note.made) == (True, len(first))
    assert note.reason == "asked for: own/a.reg, own/b.reg"
    assert own_changes(guest.compose(chosen)) == []


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Microsoft\\Windows NT\\CurrentVersion\\Winlogon", "DefaultPassword"),
        ("Site\\Agent", "RegistrationToken"),
        ("Site\\Agent", "ApiKey"),
        ("Policies\\SNMP\\Parameters\\ValidCommunities", SECRET),
    ],
)
def test_what_a_registry_text_hides_stays_hidden(guest: Any, key: str, name: str) -> None:
    text = f'[HKEY_LOCAL_MACHINE\\SOFTWARE\\{key}]\n"{name}"="{SECRET}"\n'
    put(guest, "own/secret.reg", HEAD + text)
    chosen = options(OwnStep("offline_before", "own/secret.reg"))
    changes = guest.compose(chosen)
    assert any("sha256:" in after for *_, after in own_changes(changes))
    assert SECRET not in repr(changes) + repr(guest.notes)


def test_scripts_lie_beside_their_programs_and_run_in_order(guest: Any) -> None:
    put(guest, "own/join.cmd", "@echo off\r\nexit 3010\r\n")
    put(guest, "own/tune.ps1", "Write-Output done\n")
    chosen = options(
        OwnStep("first_boot", "own/tune.ps1", timeout_seconds=60),
        OwnStep("first_boot", "own/join.cmd", required=True),
    )
    changes = guest.compose(chosen)
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 65536).decode().split("\r\n")
    assert [line[3:] for line in plan if "run-script" in line] == [
        "optional run-script own01-tune 60",
        "required run-script own02-join 600",
    ]
    assert guest.windows.read(f"{PROGRAMS}/own02-join/join.cmd", 99) == (
        b"@echo off\r\nexit 3010\r\n"
    )
    assert b"own01-tune\\tune.ps1" in guest.windows.read(f"{PROGRAMS}/own01-tune.cmd", 999)
    names = {change.step for change in changes if change.step.startswith("stage_own")}
    assert names == {"stage_own_scripts own/tune.ps1", "stage_own_scripts own/join.cmd"}
    assert guest.judge(options=chosen)["descriptors"].passed


def refused(guest: Any, *steps: OwnStep) -> list[Refusal]:
    with ExitStack() as stack:
        registry = guest.registry(stack)
        found = step_refusals(guest.facts(registry, options(*steps)))
    return [item for item in found if item.code == "own_step"]


REFUSED: dict[str, tuple[OwnStep, str, str]] = {
    "line": (
        OwnStep("offline_before", "a.reg"),
        HEAD + '[HKEY_LOCAL_MACHINE\\SAM]\n"a"="b"\n',
        "Own step 'a.reg': line 3: needed a key below",
    ),
    "no such set": (
        OwnStep("offline_before", "a.reg"),
        HEAD + "[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet009\\Services\\x]\n",
        "Own step 'a.reg': line 3: this guest has no such control set.",
    ),
    "no such source": (
        OwnStep("offline_after", "a.json"),
        '{"add": [{"path": "a", "from": "gone", "access": "users-read"}]}',
        "Own step 'a.json': Cannot find 'gone' in the payload.",
    ),
    "source outside": (
        OwnStep("offline_after", "a.json"),
        '{"add": [{"path": "a", "from": "../x", "access": "users-read"}]}',
        "needed one inside the payload",
    ),
    "onto a folder": (
        OwnStep("offline_after", "a.json"),
        '{"add": [{"path": "Windows/System32", "from": "a.json", "access": "users-read"}]}',
        "'Windows/System32' is a folder in this guest.",
    ),
    "below a file": (
        OwnStep("offline_after", "a.json"),
        (
            '{"add": [{"path": "Windows/System32/ntdll.dll/x", "from": "a.json", '
            '"access": "users-read"}]}'
        ),
        "lies below a file.",
    ),
    "line ends": (
        OwnStep("first_boot", "a.cmd"),
        "@echo off\r\ngoto x\n:x\r\n",
        "Own step 'a.cmd': line 2: ends with LF, needed CR LF.",
    ),
    "Unicode": (OwnStep("first_boot", "a.cmd"), "\ufeff@echo off\r\n", "line 1: found a Unicode"),
    "empty": (OwnStep("first_boot", "a.ps1"), "\r\n", "it is empty."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_step_is_refused_with_file_line_and_cause(guest: Any, name: str) -> None:
    step, content, reason = REFUSED[name]
    (guest.windows.root / "Windows/System32/ntdll.dll").write_bytes(b"MZ")
    put(guest, step.path, content)
    (found,) = refused(guest, step)
    assert reason in found.reason
    assert found.hint


def test_every_file_is_judged_before_any_is_used(guest: Any) -> None:
    steps = (
        OwnStep("offline_before", "one.reg"),
        OwnStep("offline_after", "two.json"),
        OwnStep("first_boot", "three.cmd"),
    )
    reasons = [item.reason for item in refused(guest, *steps)]
    assert reasons == [
        f"Own step '{name}': Cannot find '{name}' in the payload."
        for name in ("one.reg", "three.cmd", "two.json")
    ]


def test_without_own_steps_nothing_is_done(guest: Any) -> None:
    changes = guest.changes(EngineOptions(), apply=False)
    assert own_changes(changes) == []
    own = {"own_steps_before", "own_steps_after", "stage_own_scripts"}
    assert {n.reason for n in guest.notes if n.name in own} == {"not asked for"}
