# References: Win32_ComputerSystem.UnjoinDomainOrWorkgroup (Microsoft, CIM Win32 provider).
"""Leaving the domain at first boot, where no domain controller is in sight."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Tier
from imageport.compose.first_boot.plan import LEAVE_DOMAIN
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.programs import add_powershell_program

PROGRAM = "leave-domain"
_SECONDS = 300
SCRIPT = r"""# Leaves the domain on this machine only: no domain controller is asked, the account
# in the directory stays. A restart completes it.
$ErrorActionPreference = 'Stop'
$machine = Get-CimInstance -ClassName Win32_ComputerSystem
if (-not $machine.PartOfDomain) {
    'not in a domain'
    exit 0
}
$options = @{ FUnjoinOptions = [uint32]0 }
$answer = Invoke-CimMethod -InputObject $machine -MethodName UnjoinDomainOrWorkgroup `
    -Arguments $options
"left the domain: $($answer.ReturnValue)"
if ($answer.ReturnValue -ne 0) {
    exit 1
}
exit 3010
"""


class LeaveDomain(Step):
    """Leave the domain at first boot, locally; the account in the directory stays."""

    name: ClassVar[str] = "leave_domain"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    options: ClassVar[tuple[str, ...]] = ("leave_domain",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option asks for it."""
        return options.leave_domain

    def reason(self, facts: Facts) -> str:
        """Name the domain; a machine in none has nothing to leave."""
        domain = facts.inspection.domain
        return f"asked for; the machine is in {domain}" if domain else ""

    def run(self, context: Context) -> None:
        """Add the program and a required step of the plan."""
        add_powershell_program(context, PROGRAM, SCRIPT)
        context.plan.add(LEAVE_DOMAIN, PROGRAM, str(_SECONDS))
