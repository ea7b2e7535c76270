"""Target device software that an MCS image no longer needs: uninstalled by its own uninstaller."""

from __future__ import annotations

import re
from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.first_boot.plan import UNINSTALL_PACKAGE
from imageport.compose.guest_facts.citrix_software import PVS_TARGET_PRODUCTS
from imageport.compose.guest_facts.software import UNINSTALL
from imageport.compose.hives.registry import Registry
from imageport.compose.installers import argument_problem
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.programs import add_program

PROGRAM = "uninstall-pvs-target"
_SECONDS = 900
"""It takes minutes: drivers are taken off the network adapter one by one."""
_MSI = re.compile(
    r'"?(?:[A-Za-z]:\\Windows\\System32\\)?msiexec(?:\.exe)?"?\s+/[xi]\s*'
    r"(\{[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}\})",
    re.IGNORECASE,
)
_BATCH = re.compile(r"\.(?:cmd|bat)\b", re.IGNORECASE)
"""cmd.exe does not come back from one to the line after it, where the exit code is looked at."""
_TEXT = r"""@echo off
rem The target device software goes: Machine Creation Services do not stream.
setlocal EnableExtensions DisableDelayedExpansion
{command}
set "CODE=%ERRORLEVEL%"
echo uninstall-pvs-target ended with %CODE%
rem 1605: there is no such product (any more).
if "%CODE%"=="1605" exit /b 0
if "%CODE%"=="1641" exit /b 3010
exit /b %CODE%
"""


class UninstallPvsTarget(Step):
    """Uninstall the Provisioning target device software of an MCS image at first boot."""

    name: ClassVar[str] = "uninstall_pvs_target"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)

    def reason(self, facts: Facts) -> str:
        """Say what is there; an image for Provisioning Services keeps it."""
        product = find_product(facts.registry)
        if facts.options.provisioning != "mcs" or product is None:
            return ""
        return f"asked for; found {product[0]}"

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse where its uninstaller could only be run by somebody who answers it."""
        product = find_product(facts.registry)
        if facts.options.provisioning != "mcs" or product is None or product[1]:
            return []
        reason = f"'{product[0]}' names no uninstaller that runs silently."
        return [refusal("no_silent_uninstall", reason)]

    def run(self, context: Context) -> None:
        """Add the program and an optional step of the plan."""
        product = find_product(context.registry)
        if product is not None:
            add_program(context, PROGRAM, command_text(product[1]))
            context.plan.add(UNINSTALL_PACKAGE, PROGRAM, str(_SECONDS), required=False)


def command_text(command: str) -> str:
    """Return the program that runs a command line of cmd.exe."""
    return _TEXT.replace("{command}", command)


def find_product(registry: Registry) -> tuple[str, str] | None:
    """Return (name, line for cmd.exe that uninstalls it silently, "" when there is none)."""
    for root in (UNINSTALL, f"WOW6432Node\\{UNINSTALL}"):
        key = registry.key("SOFTWARE", root)
        for child in key.children() if key else []:
            place = f"{root}\\{child.name}"
            name = registry.text("SOFTWARE", place, "DisplayName")
            if any(words in name.lower() for words in PVS_TARGET_PRODUCTS):
                return name, _silently(registry, place)
    return None


def _silently(registry: Registry, place: str) -> str:
    match = _MSI.match(registry.text("SOFTWARE", place, "UninstallString"))
    if match:
        return (
            f'"%SystemRoot%\\System32\\msiexec.exe" /x {match[1]} /qn /norestart '
            f'/l*v "%~dp0{PROGRAM}.log"'
        )
    quiet = registry.text("SOFTWARE", place, "QuietUninstallString")
    # It comes from the image and runs as SYSTEM, as it would from Windows' own list of software.
    is_refused = argument_problem(quiet) or "%" in quiet or _BATCH.search(quiet)
    return "" if is_refused else quiet
