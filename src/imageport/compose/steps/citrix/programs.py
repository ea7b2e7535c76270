r"""Programs of first boot that these steps add: plain text for cmd.exe and PowerShell.

``NAME.cmd`` answers 0 for success and 3010 for success that a restart completes. Rules for what
stands in it: see `imageport.compose.first_boot.script`. What needs more than cmd.exe can say lies
beside it as ``NAME.ps1``, run without profile and whatever the execution policy is.
"""

from __future__ import annotations

from imageport.compose.first_boot.plan import PROGRAMS
from imageport.compose.step import Context
from imageport.compose.volumes.descriptors import Access

_POWERSHELL = r"""@echo off
setlocal EnableExtensions DisableDelayedExpansion
set "SHELL=%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe"
"%SHELL%" -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "%~dp0{name}.ps1"
exit /b %ERRORLEVEL%
"""


def add_program(context: Context, name: str, text: str) -> None:
    """Add ``NAME.cmd`` where first boot runs it from."""
    _add(context, f"{name}.cmd", text)


def add_powershell_program(context: Context, name: str, text: str) -> None:
    """Add ``NAME.ps1`` and the ``NAME.cmd`` that runs it and answers with its code."""
    _add(context, f"{name}.cmd", powershell_command(name))
    _add(context, f"{name}.ps1", text)


def powershell_command(name: str) -> str:
    """Return the text of the ``NAME.cmd`` beside a ``NAME.ps1``."""
    return _POWERSHELL.replace("{name}", name)


def _add(context: Context, name: str, text: str) -> None:
    content = text.replace("\n", "\r\n").encode("ascii")
    context.recorder.ensure_folder(PROGRAMS, Access.ADMINISTRATORS_ONLY)
    context.recorder.add_file(f"{PROGRAMS}/{name}", content, Access.ADMINISTRATORS_ONLY)
