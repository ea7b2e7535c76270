# References: SoftwareLicensingService.ReArmWindows and RemainingWindowsReArmCount,
# SoftwareLicensingProduct.RemainingAppReArmCount (Microsoft, Software licensing CIM provider).
"""New licence grace for Windows and volume Office, once, and never the last one that is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from imageport.compose.contract import EngineOptions, Tier
from imageport.compose.first_boot.plan import REARM_OFFICE, REARM_WINDOWS
from imageport.compose.guest_paths import guest_path
from imageport.compose.hives.registry import Registry
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.programs import add_powershell_program
from imageport.compose.volumes.guest_files import GuestFiles

WINDOWS_PROGRAM, OFFICE_PROGRAM = "rearm-windows", "rearm-office"
_SECONDS = 300
_OFFICE_KEYS = ("Microsoft\\Office", "WOW6432Node\\Microsoft\\Office")
_PLATFORM_KEYS = (
    "Microsoft\\OfficeSoftwareProtectionPlatform",
    "WOW6432Node\\Microsoft\\OfficeSoftwareProtectionPlatform",
)
_CLICK_TO_RUN = "Microsoft\\Office\\ClickToRun\\Configuration"
_OFFICE_VERSION = re.compile(r"\d{2}\.\d")
_PLAIN_PATH = re.compile(r"[Cc]:\\[A-Za-z0-9 ._()\\-]{1,200}")
"""What may stand between two single quotes of PowerShell without a second look."""

_WINDOWS_TEXT = r"""# Gives Windows a new licence grace period, but never the last one that is left.
# It begins at the next start, so nothing is restarted here: every copy begins its own.
$ErrorActionPreference = 'Stop'
$asked = Join-Path $PSScriptRoot 'rearm-windows.asked'
if (Test-Path -LiteralPath $asked) {
    'asked for before'
    exit 0
}
$service = Get-CimInstance -ClassName SoftwareLicensingService
$left = [int]$service.RemainingWindowsReArmCount
"left: $left"
if ($left -le 1) {
    'not done: the last one stays'
    exit 0
}
# First the mark: what is cut off in the middle must not be done twice.
Set-Content -LiteralPath $asked -Value $left
$answer = Invoke-CimMethod -InputObject $service -MethodName ReArmWindows
"ended with $($answer.ReturnValue)"
if ($answer.ReturnValue -ne 0) {
    exit 1
}
exit 0
"""
_OFFICE_TEXT = r"""# Gives Office a new licence grace period, but never the last one that is left,
# and none where nobody knows how many are.
$ErrorActionPreference = 'Stop'
$program = '{program}'
$asked = Join-Path $PSScriptRoot 'rearm-office.asked'
if (Test-Path -LiteralPath $asked) {
    'asked for before'
    exit 0
}
$office = "ApplicationID='0ff1ce15-a989-479d-af46-f275c6370663' AND PartialProductKey IS NOT NULL"
$query = "SELECT RemainingAppReArmCount FROM SoftwareLicensingProduct WHERE $office"
$counts = @(Get-CimInstance -Query $query | ForEach-Object { [int64]$_.RemainingAppReArmCount })
$left = ($counts | Where-Object { $_ -lt 4294967295 } | Measure-Object -Minimum).Minimum
"left: $left"
if ($null -eq $left -or $left -le 1) {
    'not done: the last one stays'
    exit 0
}
Set-Content -LiteralPath $asked -Value $left
& $program
"ended with $LASTEXITCODE"
exit $LASTEXITCODE
"""


class RearmLicences(Step):
    """Begin new licence grace for Windows and volume Office; never the last one that is left.

    By default for Provisioning Services only: Machine Creation Services do it themselves.
    """

    name: ClassVar[str] = "rearm"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    options: ClassVar[tuple[str, ...]] = ("rearm", "provisioning")

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether it is asked for, or left to the kind of target."""
        return options.rearm == "on" or (options.rearm == "auto" and options.provisioning == "pvs")

    def problems(self, options: EngineOptions) -> list[str]:
        """Check the word."""
        if options.rearm in {"auto", "on", "off"}:
            return []
        return [f"rearm: '{options.rearm}' is not auto, on or off"]

    def reason(self, facts: Facts) -> str:
        """Say why, and what of."""
        why = "asked for" if facts.options.rearm == "on" else "by default for PVS"
        office = office_rearm(facts.registry, facts.files)
        return f"{why}: Windows and Office" if office else f"{why}: Windows"

    def run(self, context: Context) -> None:
        """Add the programs and optional steps of the plan: a licence is never worth an image."""
        office = office_rearm(context.registry, context.files)
        if office:
            text = _OFFICE_TEXT.replace("{program}", office)
            add_powershell_program(context, OFFICE_PROGRAM, text)
            context.plan.add(REARM_OFFICE, OFFICE_PROGRAM, str(_SECONDS), required=False)
        add_powershell_program(context, WINDOWS_PROGRAM, _WINDOWS_TEXT)
        context.plan.add(REARM_WINDOWS, WINDOWS_PROGRAM, str(_SECONDS), required=False)


def office_rearm(registry: Registry, files: GuestFiles) -> str:
    """Return where volume Office's OSPPREARM.EXE lies, "" without one or for Click-to-Run."""
    if registry.key("SOFTWARE", _CLICK_TO_RUN) is not None:
        return ""
    for folder in _office_folders(registry):
        path = f"{folder.rstrip(chr(92))}\\OSPPREARM.EXE"
        if _PLAIN_PATH.fullmatch(path) and files.exists(guest_path(path)):
            return path
    return ""


def _office_folders(registry: Registry) -> Iterator[str]:
    for root in _OFFICE_KEYS:
        key = registry.key("SOFTWARE", root)
        names = [child.name for child in key.children()] if key else []
        for name in filter(_OFFICE_VERSION.fullmatch, names):
            yield registry.text("SOFTWARE", f"{root}\\{name}\\Common\\InstallRoot", "Path")
    for place in _PLATFORM_KEYS:
        yield registry.text("SOFTWARE", place, "Path")
