"""VMware Tools. Reference: VMware's own names in real hives; what its installer leaves."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.source_platform import SourcePlatform

VMWARE = SourcePlatform(
    name="vmware",
    title="VMware Tools",
    makers=("vmware", "broadcom"),
    services=(
        "VMTools",
        "VGAuthService",
        "VMUpgradeHelper",
        "VMware Physical Disk Helper Service",
        "VMwareCAF*",
        "CbLauncher",
        "GISvc",
        "vmvss",
        "vmStatsProvider",
        "vm3dservice",
        "vm3dmp*",
        "vmci",
        "VMCISockets",
        "vsock",
        "vmrawdsk",
        "vmhgfs",
        "VMMemCtl",
        "vmmouse",
        "vmusbmouse",
        "vmkbd",
        "vmaudio",
        "vmdesched",
        "vmx_svga",
        "svga_wddm",
        "vmxnet*",
        "vmwefifw",
        "efifw",
        "vmwtimeprovider",
        "vnetWFP",
        "vnetflt",
        "vsepflt",
        "glxgi",
        "giappdef",
    ),
    disk_drivers=("pvscsi",),
    service_mark="vwdk.installers",
    infs=(
        "pvscsi.inf",
        "vmxnet3.inf",
        "vmxnet*.inf",
        "vmci.inf",
        "vsock.inf",
        "vmmouse.inf",
        "vmusbmouse.inf",
        "vm3d.inf",
        "vmwvaudio.inf",
        "vmaudio.inf",
        "efifw.inf",
        "vmwefifw.inf",
    ),
    folders=(
        "Program Files/VMware/VMware Tools",
        "Program Files/VMware/VMware CAF",
        "Program Files (x86)/VMware/VMware Tools",
        "Program Files/Common Files/VMware/Drivers",
        "Program Files/Common Files/VMware/InstallerCache",
        "ProgramData/VMware/VMware Tools",
        "ProgramData/VMware/VMware VGAuth",
        "ProgramData/VMware/VMware CAF",
        "ProgramData/VMware/RawdskCompatibility",
        "ProgramData/Microsoft/Windows/Start Menu/Programs/VMware/VMware Tools",
        "Windows/Temp/vmware-SYSTEM",
    ),
    files=(
        "vsocklib.dll",
        "vmhgfs.dll",
        "vm3d*",
        "vmwsu*.dll",
        "vmx_*",
        "vmGuestLib*.dll",
        "vmci.sys",
        "vsock.sys",
        "vmmemctl.sys",
        "vmhgfs.sys",
        "vmrawdsk.sys",
        "vmmouse.sys",
        "vmusbmouse.sys",
        "vnetWFP.sys",
        "vnetflt.sys",
        "vsepflt.sys",
    ),
    products=("VMware Tools",),
    software_keys=(
        "VMware, Inc.\\VMware Tools",
        "VMware, Inc.\\VMware VGAuth",
        "VMware, Inc.\\VMware Drivers",
        "VMware, Inc.\\VMware CAF",
        "VMware, Inc.\\CbLauncher",
        "VMware, Inc.\\VMwareHostOpen",
    ),
    run_values=("VMware User Process", "VMware VM3DService Process", "VMware Tools"),
    applications=("VMware Host Open",),
    class_keys=("VMwareHostOpen.AssocURL", "VMwareHostOpen.AssocFile"),
    winsock_libraries=("vsocklib.dll",),
)


class RemoveVmwareTools(RemovePlatform):
    """Remove VMware Tools: services, drivers, filters, records and files; pvscsi stays, idle."""

    name: ClassVar[str] = "remove_vmware_tools"
    provides: ClassVar[tuple[str, ...]] = ("vmware-idle",)
    platform: ClassVar[SourcePlatform] = VMWARE
