"""Nutanix Guest Tools and VirtIO."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.source_platform import SourcePlatform

NUTANIX = SourcePlatform(
    name="nutanix",
    title="Nutanix Guest Tools",
    makers=("nutanix",),
    services=(
        "Nutanix Guest*",
        "Nutanix Self Service Restore*",
        "Nutanix VSS*",
        "NutanixGuest*",
        "vioscsi",
        "viostor",
        "netkvm",
        "balloon",
        "viorng",
        "VirtioSerial",
    ),
    disk_drivers=("vioscsi", "viostor"),
    infs=("vioscsi.inf", "viostor.inf", "netkvm.inf", "balloon.inf", "viorng.inf", "vioser.inf"),
    folders=(
        "Program Files/Nutanix",
        "ProgramData/Nutanix",
        "ProgramData/Microsoft/Windows/Start Menu/Programs/Nutanix",
    ),
    files=("netkvm*", "balloon*", "viorng*", "vioser*"),
    products=("Nutanix VirtIO*", "Nutanix Guest Tools*", "Nutanix Guest Agent*"),
    software_keys=("Nutanix\\GuestTools", "Nutanix\\VirtIO"),
)


class RemoveNutanixTools(RemovePlatform):
    """Remove Nutanix' guest tools and VirtIO drivers; its disk driver stays, idle."""

    name: ClassVar[str] = "remove_nutanix_tools"
    platform: ClassVar[SourcePlatform] = NUTANIX
