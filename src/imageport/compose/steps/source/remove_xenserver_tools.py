"""XenServer's tools (Citrix VM Tools, XCP-ng's), not Amazon's drivers of the same names.

Reference: the names and the order of XenServer's own removal program and of XCP-ng's boot repair:
filters first, then drivers, and with them the switches that unplug emulated devices.
"""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context
from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.source_platform import SourcePlatform

_EMULATED_DISKS = ("pciide", "intelide", "atapi", "storahci", "stornvme", "msahci", "LSI_SAS")
"""What a machine shows once nothing unplugs it; an override of its start would leave no disk."""
_EVENT_CHANNEL = "xenevtchn"
"""Of another maker's old drivers; without its switch it stops Windows where there is no Xen."""

_DRIVERS = (
    "xenbus",
    "xencons",
    "xencrsh",
    "xendisk",
    "xenevtchn",
    "xenfilt",
    "xenhid",
    "xeniface",
    "xenlite",
    "xennet",
    "xenutil",
    "xenvbd",
    "xenvif",
    "xenvkbd",
)
"""Not every name with "xen": Citrix' desktop agent has files of that beginning too."""

XENSERVER = SourcePlatform(
    name="xenserver",
    title="XenServer VM Tools",
    makers=("citrix", "xenserver", "cloud software group", "xen project", "xcp-ng", "vates"),
    services=(
        *(f"{name}*" for name in _DRIVERS),
        "xen",
        "scsifilt",
        "xenagent",
        "XenInstall",
        "xenpvdinstall",
        "XenSvc",
    ),
    has_emulated_disk=True,
    infs=tuple(f"{name}*.inf" for name in _DRIVERS),
    folders=(
        "Program Files/Citrix/XenTools",
        "Program Files (x86)/Citrix/XenTools",
        "Program Files/XenServer/XenTools",
        "Program Files/XCP-ng/XenTools",
        "ProgramData/Citrix/XenTools",
        "ProgramData/Microsoft/Windows/Start Menu/Programs/Citrix/XenTools",
    ),
    files=(*(f"{name}*" for name in _DRIVERS), "xen.sys", "scsifilt.sys", "liteagent.exe"),
    products=(
        "Citrix XenTools*",
        "Citrix VM Tools*",
        "Citrix XenServer*Tools*",
        "XenServer VM Tools*",
        "XCP-ng*Tools*",
    ),
    software_keys=("Citrix\\XenTools", "Citrix\\XenToolsInstaller", "XenServer\\XenTools"),
)


class RemoveXenserverTools(RemovePlatform):
    """Remove XenServer's tools, so that emulated disks are seen again; Amazon's drivers stay."""

    name: ClassVar[str] = "remove_xenserver_tools"
    platform: ClassVar[SourcePlatform] = XENSERVER

    def mend(self, context: Context) -> None:
        """Let emulated disks start, and keep an event channel that stays from looking for Xen."""
        for control_set in context.registry.control_sets:
            for driver in _EMULATED_DISKS:
                override = f"{service_path(control_set, driver)}\\StartOverride"
                context.recorder.delete_key("SYSTEM", override)
            if context.registry.service(control_set, _EVENT_CHANNEL) is not None:
                path = service_path(control_set, _EVENT_CHANNEL)
                context.recorder.set_value("SYSTEM", path, "NoPVBoot", Value.dword(1))
