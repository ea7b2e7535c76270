"""Installers, uninstaller and VDA setup carried out by first boot under Wine's cmd.exe.

See ``wine.py`` for what is real in it.
"""

from __future__ import annotations

from pathlib import Path

from imageport.compose.first_boot.plan import (
    INSTALL_PACKAGE,
    RECONFIGURE_VDA,
    REMOVE_SERVICE,
    UNINSTALL_PACKAGE,
    FirstBootPlan,
)
from tests.compose.citrix_programs import MSI_PRODUCT, sample_programs
from tests.compose.first_boot.wine import WineWindows

SETUP = "drive_c/Program Files/Citrix/XenDesktopVdaSetup/XenDesktopVdaSetup.exe"
GO_ON = "drive_c/ProgramData/Citrix/XenDesktopSetup/XenDesktopVdaSetup.exe"


def prepare(windows: WineWindows, *steps: tuple[str, str, bool]) -> None:
    """Lay down a plan of (verb, program, required) with all programs."""
    plan = FirstBootPlan(1200, 2)
    for verb, program, required in steps:
        plan.add(verb, program, "60", required=required)
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    windows.prepare(plan)
    for name, content in sample_programs().items():
        (windows.folder / "programs" / name).write_bytes(content)


def stand_in(windows: WineWindows, place: Path, text: str) -> None:
    """Put a program at a place that notes its arguments and then does what the text says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes((windows.system / "pnputil.exe").read_bytes())
    body = f"@echo off\n{text}".replace("\n", "\r\n")
    place.with_suffix(".cmd").write_bytes(body.encode("ascii"))
    place.with_name("calls.txt").unlink(missing_ok=True)


def calls_of(place: Path) -> list[str]:
    """Return the command lines that a stand-in was run with."""
    noted = place.with_name("calls.txt")
    return (
        [line.strip() for line in noted.read_text("cp437").splitlines()] if noted.exists() else []
    )


def test_an_installer_gets_its_arguments_as_they_are_and_its_restart_is_made(
    windows: WineWindows,
) -> None:
    prepare(windows, (INSTALL_PACKAGE, "install-tool", True))
    tool = windows.folder / "programs/install-tool/tool.exe"
    stand_in(windows, tool, "exit /b 1641\n")
    assert windows.boot() == "/r"
    assert windows.boot() == "/s"
    assert calls_of(tool) == ['tool /S /v"/qn A=5%"']
    assert "step.01=ok" in windows.read("result.txt")


def test_the_agents_installer_goes_on_by_its_own_copy_and_is_then_left_alone(
    windows: WineWindows,
) -> None:
    prepare(windows, *[(INSTALL_PACKAGE, "install-vda", True)] * 3)
    first = windows.folder / "programs/install-vda/vda.exe"
    second = windows.prefix / GO_ON
    stand_in(windows, first, "exit /b 3\n")
    stand_in(windows, second, "exit /b 0\n")
    assert windows.boot() == "/r"
    assert windows.boot() == "/s"
    assert calls_of(first) == ["vda /quiet"]
    assert calls_of(second) == ["XenDesktopVdaSetup"]
    assert "state=done" in windows.read("result.txt")


def test_an_installer_that_fails_fails_the_boot_with_its_code(windows: WineWindows) -> None:
    prepare(windows, (INSTALL_PACKAGE, "install-vda", True))
    first = windows.folder / "programs/install-vda/vda.exe"
    stand_in(windows, first, "exit /b 1\n")
    assert windows.boot() == "/r"
    assert windows.boot() == "/s"
    assert calls_of(first) == ["vda /quiet"] * 2
    assert "step.01=failed 1" in windows.read("result.txt")


def test_packages_are_run_by_msiexec_and_the_agents_setup_is_told_its_arguments(
    windows: WineWindows,
) -> None:
    prepare(
        windows,
        (INSTALL_PACKAGE, "install-package", True),
        (UNINSTALL_PACKAGE, "uninstall-pvs-target", True),
        (RECONFIGURE_VDA, "reconfigure-vda", True),
    )
    setup = windows.prefix / SETUP
    stand_in(windows, setup, "exit /b 0\n")
    windows.answer("msiexec", 'if /i "%~1"=="/x" exit /b 1605\nexit /b 0\n')  # 1605: gone already
    assert windows.boot() == "/s"
    install, uninstall = windows.calls("msiexec")
    assert '\\install-package\\package.msi" /qn /norestart /l*v ' in install
    assert install.endswith(" ADDLOCAL=All")
    assert uninstall == f"msiexec /x {MSI_PRODUCT} /qn"
    assert calls_of(setup) == [
        'XenDesktopVdaSetup /reconfigure /quiet /controllers "a.example b.example"'
    ]
    assert "state=done" in windows.read("result.txt")
