"""VMware Tools: stopped from starting before anything else is touched."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.drivers.class_filters import filter_services
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

DISABLED = 4
VMWARE_SERVICES = (
    "VMTools",
    "VGAuthService",
    "vm3dservice",
    "vmvss",
    "VMUpgradeHelper",
    "VMware Physical Disk Helper Service",
    "CbLauncher",
    "GISvc",
    "vmci",
    "vsock",
    "vmrawdsk",
    "vmhgfs",
    "VMMemCtl",
    "vnetWFP",
    "vnetflt",
    "vsepflt",
)
"""Programs, and drivers that start by themselves without being asked for by a device.

pvscsi and vmxnet3 are not here: they are idle without their device, and the image must still start
where it came from until the new drivers are proven.
"""


class DisableVmwareServices(Step):
    """Stop VMware Tools' services and self-starting drivers from starting elsewhere."""

    name: ClassVar[str] = "disable_vmware_services"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("vmware-idle",)

    def run(self, context: Context) -> None:
        """Set Start to 4 in every control set, except for drivers that filter a device class."""
        for control_set in context.registry.control_sets:
            filters = {name.lower() for name in filter_services(context.registry, control_set)}
            for service in VMWARE_SERVICES:
                start = context.registry.start_of(control_set, service)
                # A disabled filter stops every device of its class.
                if start is None or service.lower() in filters:
                    continue
                path = service_path(control_set, service)
                context.recorder.set_value("SYSTEM", path, "Start", Value.dword(DISABLED))
