r"""The operator's own scripts, for first boot to run.

Each lies in a folder of its own beside a short program that starts it, so that it may end as it
likes: what ``exit`` ends is the program's child.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar

from imageport.compose.contract import EngineOptions, OwnPoint, OwnStep, Refusal, Tier
from imageport.compose.first_boot.plan import PROGRAMS, RUN_SCRIPT
from imageport.compose.own_steps.payload_files import ending_of, read_text
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.own.apply_own_files import own_refusal, own_steps
from imageport.compose.volumes.descriptors import Access
from imageport.errors import InputError

_CMD = '"%SystemRoot%\\System32\\cmd.exe" /d /c ""%~dp0{place}""'
_POWERSHELL = (
    '"%SystemRoot%\\System32\\WindowsPowerShell\\v1.0\\powershell.exe" -NoLogo -NoProfile '
    '-NonInteractive -ExecutionPolicy Bypass -File "%~dp0{place}"'
)
_PROGRAM = """@echo off
rem Runs the own step {path}: 0 is success, 3010 success that a restart completes.
{command}
exit /b %ERRORLEVEL%
"""


class StageOwnScripts(Step):
    """Put the operator's own scripts where first boot runs them, in the operator's order."""

    name: ClassVar[str] = "stage_own_scripts"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    options: ClassVar[tuple[str, ...]] = ("own_steps",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names a script."""
        return bool(own_steps(options, OwnPoint.FIRST_BOOT))

    def reason(self, facts: Facts) -> str:
        """Name the scripts."""
        steps = own_steps(facts.options, OwnPoint.FIRST_BOOT)
        return "asked for: " + ", ".join(step.path for step in steps)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Look at every script as text: cmd.exe misses labels where lines end without CR."""
        found = []
        for step in own_steps(facts.options, OwnPoint.FIRST_BOOT):
            try:
                problem = _text_problem(step, read_text(facts.payload, step.path))
            except InputError as error:
                problem = error.message
            if problem:
                found.append(own_refusal(step, problem))
        return found

    def run(self, context: Context) -> None:
        """Add each script with its program, and a step of the plan."""
        access = Access.ADMINISTRATORS_ONLY
        for at, step in enumerate(own_steps(context.options, OwnPoint.FIRST_BOOT), 1):
            context.recorder.begin(f"{self.name} {step.path}", self.tier)
            name = program_name(at, step)
            script = PurePosixPath(step.path).name
            context.recorder.ensure_folder(f"{PROGRAMS}/{name}", access)
            content = read_text(context.payload, step.path)
            context.recorder.add_file(f"{PROGRAMS}/{name}/{script}", content, access)
            context.recorder.add_file(f"{PROGRAMS}/{name}.cmd", program(name, step), access)
            seconds = str(step.timeout_seconds)
            context.plan.add(RUN_SCRIPT, name, seconds, required=step.required)


def program_name(at: int, step: OwnStep) -> str:
    """Return the name of a script's program: its place in the order, and the script's own.

    A folder has that name too, and Windows drops a dot at the end.
    """
    return f"own{at:02d}-{PurePosixPath(step.path).stem.rstrip('.')}"


def program(name: str, step: OwnStep) -> bytes:
    """Return the program that starts a script, ASCII with CRLF."""
    place = f"{name}\\{PurePosixPath(step.path).name}"
    command = _CMD if ending_of(step) == ".cmd" else _POWERSHELL
    text = _PROGRAM.replace("{command}", command.replace("{place}", place))
    return text.replace("{path}", step.path).replace("\n", "\r\n").encode("ascii")


def _text_problem(step: OwnStep, data: bytes) -> str:
    if not data.strip():
        return "it is empty."
    if ending_of(step) != ".cmd":
        return ""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or b"\0" in data:
        return "line 1: found a Unicode mark or NUL bytes, needed plain text without a mark."
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        if not line.endswith(b"\r"):
            return f"line {number}: ends with LF, needed CR LF."
    return ""
