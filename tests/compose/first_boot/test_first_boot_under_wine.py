"""``firstboot.cmd`` carried out by a cmd.exe: order, second attempts, restarts, deadline, the end.

See ``wine.py`` for what is real in it.
"""

from __future__ import annotations

import pytest

from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    INSTALL_AGENT,
    INSTALL_PACKAGE,
    REARM_WINDOWS,
    REMOVE_DRIVER,
    REMOVE_OVERRIDE,
    REMOVE_SERVICE,
    RESET_WINSOCK,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    RUN_SCRIPT,
    SET_EMS,
    WAIT_DEVICES,
    FirstBootPlan,
)
from tests.compose.first_boot.wine import SETS, WineWindows

SERVICES = "HKLM\\SYSTEM\\ControlSet001\\Services"


@pytest.fixture(autouse=True)
def held(windows: WineWindows) -> None:
    """What composing has left: a service that is held, and first boot's own."""
    hold(windows)


def hold(windows: WineWindows) -> None:
    values = {"BrokerAgent": "00000004", "ImageportFirstBoot": "00000002"}
    windows.import_reg(
        "".join(
            f'[HKEY_LOCAL_MACHINE\\SYSTEM\\{name}\\Services\\{service}]\n"Start"=dword:{start}\n\n'
            for name in SETS
            for service, start in values.items()
        )
    )


def a_plan(deadline_seconds: int = 1200, attempts: int = 2) -> FirstBootPlan:
    plan = FirstBootPlan(deadline_seconds, attempts)
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2")
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    return plan


def start_of(windows: WineWindows, service: str) -> str:
    return windows.reg("query", f"{SERVICES}\\{service}", "/v", "Start").strip()[-3:]


def has_ended_well(windows: WineWindows) -> bool:
    """Whether what was held is back and the service gone, by the registry itself."""
    for name in SETS:
        text = windows.reg("query", f"HKLM\\SYSTEM\\{name}\\Services", "/s")
        broker = text.partition("\\Services\\BrokerAgent")[2].partition("HKEY_")[0]
        if not broker.rstrip().endswith("0x2") or "\\ImageportFirstBoot" in text:
            return False
    return True


def test_a_plan_is_done_in_its_order_and_told_on_disk_and_serial_port(windows: WineWindows) -> None:
    plan = a_plan()
    key = "Services\\Netlogon\\Parameters"
    windows.reg("add", f"HKLM\\SYSTEM\\ControlSet001\\{key}", "/v", "Quiet", "/d", "1", "/f")
    windows.reg("add", f"{SERVICES}\\vpci\\StartOverride", "/v", "0", "/d", "3", "/f")
    plan.add(WAIT_DEVICES, "60", required=False)
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    plan.add(REMOVE_DRIVER, "oem7.inf", required=False)
    plan.add(RUN_SCRIPT, "own", "60", required=False)
    plan.add(RESTORE_VALUE, key, "Quiet", "absent", control_sets=SETS[:1])
    plan.add(REMOVE_OVERRIDE, "vpci", required=False)
    plan.add(SET_EMS, "on", "1", required=False)
    windows.prepare(plan, {"own": "echo own program says hello\nexit 0\n"})
    assert windows.boot() == "/s"
    assert windows.calls("bcdedit", "shutdown") == [
        "bcdedit /emssettings EMSPORT:1 EMSBAUDRATE:115200",
        "bcdedit /ems {default} on",
        "bcdedit /bootems {bootmgr} on",
        "shutdown /s /f /t 0",
    ]
    folder = "C:\\windows\\ImageportFirstBoot"
    assert windows.calls("pnputil") == [
        "pnputil /scan-devices",
        f'pnputil /add-driver "{folder}\\drivers\\ena\\ena.inf" /install',
        "pnputil /delete-driver oem7.inf /uninstall",
    ]
    (shell,) = windows.calls("powershell")
    assert shell.startswith("powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File ")
    assert shell.endswith(f' "{folder}\\programs\\wait-devices.ps1" -Seconds 60')
    assert windows.read("result.txt").splitlines() == [
        "state=done", "attempts=1", "restarts=0", *[f"step.{n:02d}=ok" for n in range(1, 10)],
    ]  # fmt: skip
    verbs = [
        WAIT_DEVICES, ADD_DRIVER, REMOVE_DRIVER, RUN_SCRIPT, RESTORE_SERVICE, RESTORE_VALUE,
        REMOVE_OVERRIDE, SET_EMS, REMOVE_SERVICE,
    ]  # fmt: skip
    assert windows.serial() == [
        *[f"imageport-firstboot: step {n:02d} {verb} ok 0" for n, verb in enumerate(verbs, 1)],
        "imageport-firstboot: done",
    ]
    assert has_ended_well(windows)
    assert windows.reg("query", f"HKLM\\SYSTEM\\ControlSet001\\{key}", "/v", "Quiet") == ""
    assert windows.reg("query", f"{SERVICES}\\vpci\\StartOverride") == ""
    assert windows.reg("query", f"{SERVICES}\\vpci") != ""
    assert "hello" in windows.read("output-04.txt")
    assert "hello" not in windows.read("log.txt")


def test_a_restart_that_a_program_needs_is_no_attempt_and_nothing_is_done_twice(
    windows: WineWindows,
) -> None:
    plan = a_plan(attempts=1)
    plan.add(RESET_WINSOCK)
    plan.add(INSTALL_PACKAGE, "pvs", "60")
    plan.add(REARM_WINDOWS, "rearm", "60")
    note = '>>"%~dp0ran.txt" echo {0}\n'
    windows.prepare(
        plan,
        {"pvs": note.format("pvs") + "exit /b 3010\n", "rearm": note.format("rearm") + "exit 0\n"},
    )
    for end in ("/r", "/r", "/s"):
        assert windows.boot() == end
        assert (windows.read("leaving.txt") != "") == (end == "/r")  # for the deadline's watch
    assert windows.read("programs/ran.txt").splitlines() == ["pvs", "rearm"]
    assert windows.calls("netsh") == ["netsh winsock reset"]
    lines = windows.read("result.txt").splitlines()
    assert lines[:3] == ["state=done", "attempts=1", "restarts=2"]
    assert lines[3:] == [f"step.{number:02d}=ok" for number in range(1, 6)]
    assert int(windows.read("elapsed.txt") or 60) >= 60  # restarts count too
    assert has_ended_well(windows)


def test_a_required_step_that_fails_is_tried_again_after_a_restart(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(INSTALL_PACKAGE, "first", "60")
    plan.add(INSTALL_PACKAGE, "second", "60")
    plan.add(INSTALL_PACKAGE, "third", "60")
    note = '>>"%~dp0ran.txt" echo %~n0\n'
    second = note + 'if exist "%~dp0again.txt" exit 0\n>"%~dp0again.txt" echo x\nexit /b 1603\n'
    windows.prepare(plan, {"first": note, "second": second, "third": note})
    assert windows.boot() == "/r", windows.read("log.txt")
    assert windows.read("result.txt") == ""
    assert start_of(windows, "BrokerAgent") == "0x4"  # it is still held
    assert windows.serial()[-1] == "imageport-firstboot: step 02 install-package failed 1603"
    for name in ("taken.txt", "watch.txt"):  # of a watch whose machine was then cut off
        (windows.folder / name).write_bytes(b"x\r\n")
    assert windows.boot() == "/s"
    assert windows.read("programs/ran.txt").split() == ["first", "second", "second", "third"]
    assert windows.read("result.txt").splitlines()[:5] == [
        "state=done", "attempts=2", "restarts=0", "step.01=ok", "step.02=ok",
    ]  # fmt: skip
    assert has_ended_well(windows)


def test_what_never_works_ends_after_its_attempts_with_the_reason(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    plan.add(RUN_SCRIPT, "never", "60", required=False)
    windows.prepare(plan, {"never": '>"%~dp0ran.txt" echo x\n'})
    windows.answer("pnputil", "exit /b 2\n")
    assert [windows.boot(), windows.boot()] == ["/r", "/s"]
    lines = windows.read("result.txt").splitlines()
    assert lines[:4] == ["state=failed", "reason=step-01", "attempts=2", "restarts=0"]
    assert lines[4:] == ["step.01=failed 2", "step.03=ok", "step.04=ok"]
    assert windows.serial()[-1] == "imageport-firstboot: failed step-01 add-driver code 2"
    assert windows.read("programs/ran.txt") == ""  # nothing is built on what failed
    assert has_ended_well(windows)


@pytest.mark.parametrize("end", ["done", "failed earlier"])
def test_a_machine_that_was_cut_off_after_its_result_ends_once_more(
    windows: WineWindows, end: str
) -> None:
    plan = a_plan()
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    windows.prepare(plan)
    result = f"state={end.removesuffix(' earlier')}\r\nattempts=1\r\n"
    (windows.folder / "result.txt").write_bytes(result.encode())
    assert windows.boot() == "/s"
    assert windows.calls("pnputil") == []
    assert windows.read("result.txt").split() == result.split()
    assert windows.serial()[-1] == f"imageport-firstboot: {end}"
    assert has_ended_well(windows)


def test_an_optional_step_that_fails_costs_no_attempt(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(INSTALL_AGENT, "agent.msi", required=False)
    windows.prepare(plan)
    windows.answer("msiexec", "exit /b 1620\n")
    assert windows.boot() == "/s"
    assert windows.read("result.txt").splitlines()[:4] == [
        "state=done", "attempts=1", "restarts=0", "step.01=failed 1620",
    ]  # fmt: skip
    folder = "C:\\windows\\ImageportFirstBoot"
    assert windows.calls("msiexec") == [
        f'msiexec /i "{folder}\\agent\\agent.msi" /qn /norestart /l*v "{folder}\\agent.log"'
    ]


def test_a_program_that_hangs_is_left_behind_after_its_own_time(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(RUN_SCRIPT, "hangs", "20", required=False)
    plan.add(RUN_SCRIPT, "works", "60", required=False)
    hangs = '"%SystemRoot%\\System32\\ping.exe" -n 9000 127.0.0.1\n'
    windows.prepare(plan, {"hangs": hangs, "works": "exit 0\n"})
    assert windows.boot() == "/s"
    lines = windows.read("result.txt").splitlines()
    assert lines[3:5] == ["step.01=failed timeout", "step.02=ok"]


def test_the_deadline_ends_it_all_and_runs_on_over_restarts(windows: WineWindows) -> None:
    plan = a_plan(deadline_seconds=200)
    plan.add(INSTALL_PACKAGE, "pvs", "600")
    plan.add(INSTALL_PACKAGE, "vda", "6000")
    hangs = '"%SystemRoot%\\System32\\ping.exe" -n 9000 127.0.0.1\n'
    windows.prepare(plan, {"pvs": "exit 3010\n", "vda": hangs})
    assert windows.boot() == "/r"
    (windows.folder / "elapsed.txt").write_bytes(b"40\r\n")
    assert windows.boot() == "/s"
    assert int(windows.read("elapsed.txt")) == 200  # 40, a minute for the restart, ten rounds
    reason = "deadline in step 02 install-package"
    lines = windows.read("result.txt").splitlines()
    assert lines[:5] == [
        "state=failed", f"reason={reason}", "attempts=1", "restarts=1", "step.01=ok",
    ]  # fmt: skip
    assert windows.serial()[-1] == f"imageport-firstboot: failed {reason}"
    assert "deadline of 200 s passed" in windows.read("watch.txt")
    assert has_ended_well(windows)


def test_restarts_without_end_are_ended(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(INSTALL_PACKAGE, "pvs", "60")
    windows.prepare(plan, {"pvs": "exit 3010\n"})
    (windows.folder / "restarts.txt").write_bytes(b"8\r\n")
    assert windows.boot() == "/s"
    assert "reason=restarts" in windows.read("result.txt")
    assert has_ended_well(windows)


def test_a_machine_that_breaks_off_again_and_again_is_given_up(windows: WineWindows) -> None:
    plan = a_plan()
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    windows.prepare(plan)
    (windows.folder / "attempts.txt").write_bytes(b"2\r\n")
    assert windows.boot() == "/s"
    assert windows.calls("pnputil") == []
    lines = windows.read("result.txt").splitlines()
    assert lines[:3] == ["state=failed", "reason=attempts", "attempts=3"]
    assert has_ended_well(windows)


@pytest.mark.parametrize(("code", "asks"), [("258", 0), ("1", 2), ("2", 2)])
def test_where_powershell_cannot_wait_the_service_is_asked(
    windows: WineWindows, code: str, asks: int
) -> None:
    plan = a_plan()
    plan.add(WAIT_DEVICES, "60", required=False)
    windows.prepare(plan)
    windows.answer("WindowsPowerShell/v1.0/powershell", f"exit /b {code}\n")
    once = 'if exist "%~dp0asked.txt" exit 0\n>"%~dp0asked.txt" echo x\necho STATE : 4 RUNNING\n'
    (windows.system / "asked.txt").unlink(missing_ok=True)
    windows.answer("sc", once)
    assert windows.boot() == "/s"
    assert windows.calls("sc") == ["sc query DeviceInstall"] * asks
    assert "step.01=ok" in windows.read("result.txt")


def test_a_system_that_is_still_starting_is_asked_again_to_shut_down(windows: WineWindows) -> None:
    windows.prepare(a_plan())
    refuses = 'if exist "%~dp0asked.txt" exit 0\n>"%~dp0asked.txt" echo x\nexit /b 21\n'
    (windows.system / "asked.txt").unlink(missing_ok=True)
    windows.answer("shutdown", refuses)
    windows.answer("ping", "exit /b 1\n")  # it is no clock here
    assert windows.boot(ends=2) == "/s"
    assert windows.calls("shutdown") == ["shutdown /s /f /t 0"] * 2
    assert "waitfor /t 15 Imageportrun" in windows.calls("waitfor")


def test_the_deadline_leaves_a_machine_alone_that_is_about_to_restart(windows: WineWindows) -> None:
    windows.prepare(a_plan(deadline_seconds=60))
    (windows.folder / "elapsed.txt").write_bytes(b"60\r\n")
    leaving = windows.folder / "leaving.txt"
    leaving.write_bytes(b"restart\r\n")
    windows.watch()
    windows.wait_until(lambda: int(windows.read("elapsed.txt") or 0) > 140)
    assert windows.calls("shutdown") == []
    leaving.unlink()  # no such restart is under way: then the deadline counts
    windows.wait_until(lambda: windows.calls("shutdown") == ["shutdown /s /f /t 0"])
    windows.end_programs()
    assert has_ended_well(windows)
