"""What rests during the one boot, by what the image has; and the bounds of that boot."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.steps.first_boot.add_first_boot import AddFirstBoot
from imageport.sandbox.sample.hives import merge_text

SETS = ("ControlSet001", "ControlSet002")


def set_starts(hive: Path, service: str, starts: tuple[int, int]) -> None:
    text = "".join(
        f'[\\{name}\\Services\\{service}]\n"Start"=dword:{start:08x}\n\n'
        for name, start in zip(SETS, starts, strict=True)
    )
    merge_text(hive, text)


def starts(hive: Path, service: str) -> list[str]:
    return [
        subprocess.run(
            ["hivexget", hive, f"\\{name}\\Services\\{service}", "Start"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for name in SETS
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "before", "after", "restored"),
    [
        ("BrokerAgent", (2, 2), ["4", "4"], list(SETS)),
        ("ccmsetup", (2, 2), ["4", "4"], list(SETS)),
        ("CcmExec", (2, 3), ["4", "3"], ["ControlSet001"]),  # the other set differs: left alone
        ("wuauserv", (4, 4), ["4", "4"], []),  # it rests already, and goes on to
        ("WaaSMedicSvc", (3, 3), ["3", "3"], []),
        ("Spooler", (2, 2), ["2", "2"], []),
    ],
)
def test_a_service_rests_in_the_sets_that_first_boot_restores(
    guest: Any, service: str, before: tuple[int, int], after: list[str], restored: list[str]
) -> None:
    set_starts(guest.hive("SYSTEM"), service, before)
    guest.compose()
    assert starts(guest.hive("SYSTEM"), service) == after
    script = (guest.windows.root / FOLDER / "firstboot.cmd").read_bytes().decode()
    called = [name for name in SETS if f":set_dword {name}\\Services\\{service} Start" in script]
    assert called == restored


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(), ""),
        (EngineOptions(first_boot_deadline_seconds=60, first_boot_attempts=10), ""),
        (EngineOptions(first_boot_deadline_seconds=7200, first_boot_attempts=1), ""),
        (
            EngineOptions(first_boot_deadline_seconds=59),
            "first_boot_deadline_seconds: 59 is not within 60 to 7200",
        ),
        (
            EngineOptions(first_boot_deadline_seconds=7201),
            "first_boot_deadline_seconds: 7201 is not within 60 to 7200",
        ),
        (EngineOptions(first_boot_attempts=0), "first_boot_attempts: 0 is not within 1 to 10"),
        (EngineOptions(first_boot_attempts=11), "first_boot_attempts: 11 is not within 1 to 10"),
    ],
)
def test_deadline_and_attempts_have_bounds(options: EngineOptions, message: str) -> None:
    assert AddFirstBoot().problems(options) == ([message] if message else [])
