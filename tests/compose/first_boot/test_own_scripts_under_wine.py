"""An operator's own scripts carried out by first boot under Wine's cmd.exe.

See ``wine.py`` for what is real in it.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from imageport.compose.contract import OwnStep
from imageport.compose.first_boot.plan import REMOVE_SERVICE, RUN_SCRIPT, FirstBootPlan
from imageport.compose.steps.own.stage_own_scripts import program, program_name
from tests.compose.first_boot.wine import WineWindows


def prepare(windows: WineWindows, *scripts: tuple[OwnStep, str]) -> None:
    """Lay down a plan of own steps, each script with its text."""
    plan = FirstBootPlan(1200, 1)
    names = [program_name(at, step) for at, (step, _) in enumerate(scripts, 1)]
    for name, (step, _) in zip(names, scripts, strict=True):
        plan.add(RUN_SCRIPT, name, str(step.timeout_seconds), required=step.required)
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    windows.prepare(plan)
    for name, (step, text) in zip(names, scripts, strict=True):
        folder = windows.folder / "programs" / name
        folder.mkdir()
        content = text.replace("\n", "\r\n").encode("ascii")
        (folder / PurePosixPath(step.path).name).write_bytes(content)
        (windows.folder / f"programs/{name}.cmd").write_bytes(program(name, step))


def test_scripts_run_in_order_each_in_a_shell_of_its_own(windows: WineWindows) -> None:
    prepare(
        windows,
        (OwnStep("first_boot", "own/one.cmd"), '@set LEFT=1\n@echo one>>"%~dp0..\\order.txt"\n'),
        (
            OwnStep("first_boot", "own/two.cmd", required=True),
            '@echo two %LEFT%.>>"%~dp0..\\order.txt"\n@exit 0\n',
        ),
    )
    assert windows.boot() == "/s"
    assert windows.read("programs/order.txt").split("\n")[:2] == ["one", "two ."]
    assert "step.02=ok" in windows.read("result.txt")
    assert "imageport-firstboot: done" in windows.serial()


def test_a_script_may_ask_for_a_restart_and_a_required_one_may_fail_the_boot(
    windows: WineWindows,
) -> None:
    prepare(
        windows,
        (OwnStep("first_boot", "join.cmd"), "@exit 3010\n"),
        (OwnStep("first_boot", "check.cmd", required=True), "@exit /b 7\n"),
    )
    assert windows.boot() == "/r"
    assert windows.boot() == "/s"
    result = windows.read("result.txt")
    assert "step.01=ok" in result
    assert "step.02=failed 7" in result
    assert "state=failed" in result


def test_a_powershell_script_gets_its_own_file_and_its_code_counts(windows: WineWindows) -> None:
    step = OwnStep("first_boot", "own/tune.ps1", required=True)
    prepare(windows, (step, "exit 5\n"))
    windows.answer("WindowsPowerShell/v1.0/powershell", "exit /b 5\n")
    windows.boot()
    (call,) = windows.calls("powershell")
    assert "-ExecutionPolicy Bypass -File" in call
    assert "ImageportFirstBoot\\programs\\own01-tune\\tune.ps1" in call
    assert "step.01=failed 5" in windows.read("result.txt")
