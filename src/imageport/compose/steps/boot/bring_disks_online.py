"""Disks: whether Windows brings one that it has never seen online by itself."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

ONLINE_ALL = 1
"""VDS_SP_ONLINE; Windows Server's own default keeps disks on a shared bus, as SCSI is, offline."""
POLICY = "SanPolicy"


def san_policy_path(control_set: str) -> str:
    """Return the key in SYSTEM that holds the SAN policy."""
    return f"{service_path(control_set, 'partmgr')}\\Parameters"


def san_policy(registry: Registry, control_set: str) -> int | None:
    """Return a control set's SAN policy, None when nothing is set."""
    return registry.number("SYSTEM", san_policy_path(control_set), POLICY)


class BringDisksOnline(Step):
    """Bring every disk online by itself: the local disk is where Provisioning Services caches."""

    name: ClassVar[str] = "bring_disks_online"
    tier: ClassVar[Tier] = Tier.REQUIRED
    clouds: ClassVar[tuple[str, ...]] = ("azure", "gcp")
    """Their disks are SCSI; those of AWS are NVMe, which is no shared bus."""

    def run(self, context: Context) -> None:
        """Set the SAN policy to OnlineAll in every control set."""
        for control_set in context.registry.control_sets:
            path = san_policy_path(control_set)
            context.recorder.set_value("SYSTEM", path, POLICY, Value.dword(ONLINE_ALL))
