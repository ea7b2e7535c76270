"""Services that must not act during the one boot: it is no session, and no domain is in sight."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.first_boot.plan import RESTORE_SERVICE, RESTORE_VALUE
from imageport.compose.hives.registry import DISABLED, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_HELD = ("BrokerAgent", "CcmExec", "ccmsetup", "wuauserv", "UsoSvc")
"""Broker registration, SCCM and its installer, Windows Update and its orchestrator. WaaSMedicSvc,
which repairs the latter two, stays: its key may be closed to first boot, which would have to put it
back, and what it repairs is what first boot sets anyway."""
_PASSWORD_KEY = "Services\\Netlogon\\Parameters"  # noqa: S105 - a registry path
_PASSWORD_SWITCH = "DisablePasswordChange"  # noqa: S105 - a value's name


class HoldServices(Step):
    """Hold broker agent, SCCM, updates and the machine-password change for the first boot only."""

    name: ClassVar[str] = "hold_services"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("services-held",)

    def run(self, context: Context) -> None:
        """Disable them in every control set; first boot puts each back as it was."""
        current = context.registry.current_control_set
        for service in _HELD:
            before = context.registry.start_of(current, service)
            if before is None or before == DISABLED:
                continue
            held = _alike(context, service, before)
            context.plan.add(RESTORE_SERVICE, service, str(before), control_sets=held)
            for control_set in held:
                path = service_path(control_set, service)
                context.hold("SYSTEM", path, "Start", Value.dword(DISABLED))
        self._hold_machine_password(context, current)

    @staticmethod
    def _hold_machine_password(context: Context, current: str) -> None:
        if context.registry.service(current, "Netlogon") is None:
            return
        before = context.registry.number("SYSTEM", f"{current}\\{_PASSWORD_KEY}", _PASSWORD_SWITCH)
        if before == 1:
            return
        value = "absent" if before is None else f"dword:{before}"
        held = tuple(
            name
            for name in context.registry.control_sets
            if context.registry.service(name, "Netlogon") is not None
            and context.registry.number("SYSTEM", f"{name}\\{_PASSWORD_KEY}", _PASSWORD_SWITCH)
            == before
        )
        arguments = (_PASSWORD_KEY, _PASSWORD_SWITCH, value)
        context.plan.add(RESTORE_VALUE, *arguments, control_sets=held)
        for control_set in held:
            key = f"{control_set}\\{_PASSWORD_KEY}"
            context.hold("SYSTEM", key, _PASSWORD_SWITCH, Value.dword(1))


def _alike(context: Context, service: str, start: int) -> tuple[str, ...]:
    """Return the control sets in which the service starts as in the current one.

    A step restores one start type, so a set that differs is neither held nor restored.
    """
    sets = context.registry.control_sets
    return tuple(name for name in sets if context.registry.start_of(name, service) == start)
