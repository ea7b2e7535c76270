"""virtio drivers and agents of another KVM host, and Red Hat's drivers of its Xen time."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.source_platform import SourcePlatform

OLD_VIRTIO = SourcePlatform(
    name="kvm",
    title="virtio drivers",
    makers=("red hat", "redhat", "qemu", "spice", "fedora"),
    services=(
        "QEMU-GA",
        "QEMU Guest Agent VSS Provider",
        "BalloonService",
        "spice-agent",
        "vdservice",
        "balloon",
        "netkvm",
        "netkvmp",
        "vioscsi",
        "viostor",
        "VirtioSerial",
        "vioinput*",
        "viohidkmdf",
        "viorng",
        "VirtRng",
        "viofs*",
        "VirtioFsDrv",
        "viogpu*",
        "viosock*",
        "VirtioSocket*",
        "viomem",
        "pvpanic",
        "qemufwcfg",
        "fwcfg",
        "qxl*",
        "rhelscsi",
        "rhelnet",
        "rhelfltr",
    ),
    disk_drivers=("vioscsi", "viostor"),
    infs=("vio*.inf", "netkvm.inf", "balloon.inf", "pvpanic*.inf", "qxl*.inf", "*fwcfg*.inf",
          "qemu*.inf", "smbus.inf", "virt-rng.inf", "rhel*.inf"),
    folders=(
        "Program Files/Qemu-ga",
        "Program Files/QEMU Guest Agent",
        "Program Files/Virtio-Win",
        "Program Files/SPICE agent",
        "Program Files (x86)/SPICE agent",
        "ProgramData/Microsoft/Windows/Start Menu/Programs/Virtio-Win",
    ),
    files=("netkvm*", "balloon*", "blnsvr.exe", "vio*", "pvpanic*", "qxl*", "rhel*.sys",
           "virt-rng.sys", "qga*.dll"),
    products=(
        "QEMU guest agent*",
        "Virtio-win*",
        "Red Hat VirtIO*",
        "Spice Agent*",
        "SPICE Guest Tools*",
        "QXL*",
    ),
    software_keys=("RedHat\\Virtio-Win", "Red Hat\\Virtio-Win"),
    winsock_libraries=("viosocklib.dll",),
)  # fmt: skip


class RemoveOldVirtio(RemovePlatform):
    """Remove another host's virtio drivers and agents; what the target uses stays."""

    name: ClassVar[str] = "remove_old_virtio"
    platform: ClassVar[SourcePlatform] = OLD_VIRTIO
