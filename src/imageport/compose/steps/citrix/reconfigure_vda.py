"""The Virtual Delivery Agent's own reconfiguration, with the operator's arguments."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Refusal, Software, Tier
from imageport.compose.first_boot.plan import RECONFIGURE_VDA
from imageport.compose.guest_paths import shown_file
from imageport.compose.installers import argument_problems, brings
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.programs import add_program

PROGRAM = "reconfigure-vda"
SETUP = "Program Files/Citrix/XenDesktopVdaSetup/XenDesktopVdaSetup.exe"
_SECONDS = 900
_TEXT = r"""@echo off
rem The Virtual Delivery Agent is told its controllers and ports by its own setup program.
setlocal EnableExtensions DisableDelayedExpansion
"%ProgramFiles%\Citrix\XenDesktopVdaSetup\XenDesktopVdaSetup.exe" /reconfigure {arguments}
set "CODE=%ERRORLEVEL%"
echo reconfigure-vda ended with %CODE%
rem 3 and 8: done, a restart completes it.
if "%CODE%"=="3" exit /b 3010
if "%CODE%"=="8" exit /b 3010
exit /b %CODE%
"""
_SILENT = "/quiet"
"""There is nobody to answer a window."""


class ReconfigureVda(Step):
    """Run the VDA's setup with /reconfigure and the arguments of the option at first boot."""

    name: ClassVar[str] = "reconfigure_vda"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    options: ClassVar[tuple[str, ...]] = ("vda_reconfigure", "installers")

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names arguments."""
        return bool(options.vda_reconfigure)

    def problems(self, options: EngineOptions) -> list[str]:
        """Check the arguments; they are never repeated."""
        return argument_problems("vda_reconfigure", options.vda_reconfigure)

    def reason(self, facts: Facts) -> str:
        """Say that it was asked for."""
        return f"asked for, with {len(facts.options.vda_reconfigure)} arguments"

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse where there is no setup program, and no installer brings one."""
        if facts.files.exists(SETUP) or brings(facts.options, Software.VDA):
            return []
        return [refusal("vda_missing", f"{shown_file(SETUP)} is missing.")]

    def run(self, context: Context) -> None:
        """Add the program and a required step of the plan."""
        add_program(context, PROGRAM, command_text(context.options.vda_reconfigure))
        context.plan.add(RECONFIGURE_VDA, PROGRAM, str(_SECONDS))


def command_text(arguments: tuple[str, ...]) -> str:
    """Return the program; of the arguments only percent signs mean anything to cmd.exe."""
    words = [argument.replace("%", "%%") for argument in arguments]
    if _SILENT not in map(str.lower, words):
        words.insert(0, _SILENT)
    return _TEXT.replace("{arguments}", " ".join(words))
