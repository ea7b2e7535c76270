"""The player's first boot in a folder: programs, restarts, attempts, driver removal, EMS."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.sandbox.guest_player.command_files import run_command_file
from imageport.sandbox.guest_player.first_boot import FirstBoot, parse_plan
from imageport.sandbox.guest_player.installers import Machine
from imageport.sandbox.guest_player.plan_steps import FOLDER, Hives
from imageport.sandbox.guest_player.registry import Hive, strings
from imageport.sandbox.sample.hives import make_hive
from imageport.sandbox.sample.installer_package import write_installer
from imageport.sandbox.sample.windows_registry import make_boot_store
from tests.sandbox.guest_player.plain_volume import PlainVolume

SYSTEM = """[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]
"Current"=dword:00000001

[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\ImageportFirstBoot]
"Start"=dword:00000002
"""
END = "required remove-service ImageportFirstBoot"
INSTALL = (
    '@echo off\n"%~dp0install-pvs\\PVS_Device_x64.exe" /S /v"/qn"\nset "CODE=%ERRORLEVEL%"\n'
    'if "%CODE%"=="1641" exit /b 3010\nexit /b %CODE%\n'
)
SCRIPT = '@echo off\n"%SystemRoot%\\System32\\cscript.exe" x.vbs\nexit /b 0\n'


class Guest:
    """A guest with the few files and keys that these steps are about."""

    def __init__(self, root: Path) -> None:
        (root / "Windows/System32").mkdir(parents=True)
        self.volume = PlainVolume(root)
        self.volume.write("Windows\\System32\\cscript.exe", b"MZ")
        texts = {"SYSTEM": SYSTEM, "SOFTWARE": "", "DRIVERS": ""}
        for name, text in texts.items():
            head = f"[HKEY_LOCAL_MACHINE\\{name}\\X]\n\n"
            make_hive(root / name, f"HKEY_LOCAL_MACHINE\\{name}", [head + text])
        make_boot_store(root / "BCD")
        self.hives = Hives(*(Hive(root / name) for name in (*texts, "BCD")))

    def program(self, name: str, text: str) -> None:
        content = text.replace("\n", "\r\n").encode()
        self.volume.write(f"{FOLDER}\\programs\\{name}.cmd", content)

    def installer(self, folder: Path, exit_code: int) -> None:
        made = write_installer(folder, "pvs_target", "2407.0.0.10", exit_code=exit_code)
        place = f"{FOLDER}\\programs\\install-pvs\\{made.name}"
        self.volume.write(place, made.read_bytes())

    def boot(self, *steps: str, attempts: int = 2) -> list[str]:
        """Do the steps and the one that ends a boot; returns the serial port's lines."""
        numbered = [f"{at:02d} {step}" for at, step in enumerate((*steps, END), 1)]
        lines = ["imageport-firstboot 1", "deadline 600", f"attempts {attempts}", *numbered]
        plan = parse_plan("".join(f"{line}\r\n" for line in lines).encode())
        assert plan is not None
        said = FirstBoot(self.volume, self.hives, ()).run(plan)
        return [line.removeprefix("imageport-firstboot: ") for line in said]

    def result(self) -> list[str]:
        return (self.volume.read(f"{FOLDER}\\result.txt") or b"").decode().splitlines()

    def is_over(self) -> bool:
        return self.hives.system.key("ControlSet001\\Services\\ImageportFirstBoot") is None


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "c")


@pytest.mark.parametrize(("exit_code", "restarts"), [(0, 0), (3010, 1), (1641, 1)])
def test_an_installer_is_run_and_its_restart_counted(
    guest: Guest, tmp_path: Path, exit_code: int, restarts: int
) -> None:
    guest.installer(tmp_path / "payload", exit_code)
    guest.program("pvs", INSTALL)
    said = guest.boot("required install-package pvs 600", "optional reset-winsock")
    assert said[0] == f"step 01 install-package ok {3010 if restarts else 0}"
    assert said[1:] == ["step 02 reset-winsock ok 3010", "step 03 remove-service ok 0", "done"]
    assert guest.result() == [
        "state=done", "attempts=1", f"restarts={restarts + 1}", "step.01=ok", "step.02=ok",
        "step.03=ok",
    ]  # fmt: skip
    assert guest.hives.system.key("ControlSet001\\Services\\BNDevice")
    assert guest.is_over()


def test_a_required_program_that_fails_ends_every_attempt(guest: Guest, tmp_path: Path) -> None:
    guest.installer(tmp_path / "payload", 1603)
    guest.program("pvs", INSTALL)
    guest.program("later", SCRIPT)
    said = guest.boot("required install-package pvs 600", "optional run-script later 60")
    assert said == [
        *["step 01 install-package failed 1603"] * 2,
        "step 03 remove-service ok 0",
        "failed step-01 install-package code 1603",
    ]
    assert guest.result()[:3] == ["state=failed", "reason=step-01", "attempts=2"]
    assert guest.is_over()


def test_what_was_done_is_not_done_again_by_the_next_attempt(guest: Guest, tmp_path: Path) -> None:
    guest.installer(tmp_path / "payload", 1603)
    guest.program("first", SCRIPT)
    guest.program("pvs", INSTALL)
    said = guest.boot("required run-script first 60", "required install-package pvs 600")
    assert [line for line in said if "step 01" in line] == ["step 01 run-script ok 0"]
    assert guest.result()[2:4] == ["attempts=2", "restarts=0"]


def test_restarts_are_bounded(guest: Guest) -> None:
    said = guest.boot(*["required reset-winsock"] * 9, attempts=1)
    assert said[-1] == "failed restarts"
    assert guest.is_over()


def answer(guest: Guest, name: str) -> str:
    machine = Machine(guest.volume, guest.hives.system, guest.hives.software, "ControlSet001")
    return run_command_file(machine, f"{FOLDER}\\programs", name)[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SCRIPT, "0"),
        (SCRIPT.replace("cscript", "nothing"), "9009"),
        ('@echo off\n"%~dp0own\\one.cmd"\n', "9009"),
        ('@echo off\nset "SHELL=%SystemRoot%\\System32\\cscript.exe"\n"%SHELL%" "%~dp0x.ps1"\n',
         "9009"),
        ('@echo off\nset "SHELL=%SystemRoot%\\System32\\cscript.exe"\n"%SHELL%" x\n', "0"),
    ],
)  # fmt: skip
def test_a_program_needs_what_it_names(guest: Guest, text: str, code: str) -> None:
    guest.program("one", text)
    assert answer(guest, "one") == code


def test_a_program_that_is_missing_or_no_text_for_cmd_fails(guest: Guest) -> None:
    assert answer(guest, "none") == "1"
    guest.volume.write(f"{FOLDER}\\programs\\unix.cmd", SCRIPT.encode())
    assert answer(guest, "unix") == "1"


def test_a_program_in_parts_stops_when_it_has_noted_that_it_is_done(
    guest: Guest, tmp_path: Path
) -> None:
    guest.installer(tmp_path / "payload", 8)
    guest.program(
        "pvs",
        '@echo off\nset "DONE=%~dp0pvs.done"\n"%~dp0install-pvs\\PVS_Device_x64.exe" /S\n'
        'if "%CODE%"=="8" goto restart\nexit /b 1\n\n'
        ':restart\n>"%DONE%" echo done\nexit /b 3010\n',
    )
    assert [answer(guest, "pvs"), answer(guest, "pvs")] == ["3010", "0"]


def test_a_driver_package_goes_with_its_records(guest: Guest) -> None:
    guest.volume.write("Windows\\INF\\oem7.inf", b"; x")
    drivers = guest.hives.drivers
    drivers.set("DriverDatabase\\DriverInfFiles\\oem7.inf", {"": strings("x.inf_amd64_1")})
    drivers.set("DriverDatabase\\DriverPackages\\x.inf_amd64_1", {"": strings("oem7.inf")})
    drivers.flush()
    said = guest.boot("required remove-driver oem7.inf", "required remove-driver oem8.inf")
    assert said[-1] == "done"
    assert not guest.volume.exists("Windows\\INF\\oem7.inf")
    assert drivers.key("DriverDatabase\\DriverPackages\\x.inf_amd64_1") is None


BOOT_MANAGER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"


def test_emergency_services_are_switched_in_the_boot_store(guest: Guest) -> None:
    assert guest.boot("required set-ems on 2")[-1] == "done"
    store = guest.hives.boot_store
    port = store.key("Objects\\{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}\\Elements\\15000022")
    assert (port or {})["element"][1][0] == 2
    switch = store.key(f"Objects\\{BOOT_MANAGER}\\Elements\\16000020")
    assert (switch or {})["element"][1] == b"\1"


@pytest.mark.parametrize(
    ("argument", "outcome"),
    [
        (f"off keep bootems:{BOOT_MANAGER[1:-1]}", "done"),
        ("on keep ems:00000000-0000-0000-0000-000000000000", "failed"),
        ("on", "failed"),
        ("maybe 1", "failed"),
    ],
)
def test_one_switch_is_restored_or_the_step_fails(
    guest: Guest, argument: str, outcome: str
) -> None:
    assert guest.boot(f"required set-ems {argument}")[-1].split()[0] == outcome
