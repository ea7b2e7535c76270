"""What kind of Windows a guest made from text is: system, platform, provisioning, firmware."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class System(StrEnum):
    """Releases of Windows that desktops are published from."""

    WIN10 = "win10"
    WIN11 = "win11"
    SERVER2016 = "server2016"
    SERVER2019 = "server2019"
    SERVER2022 = "server2022"
    SERVER2025 = "server2025"


class Platform(StrEnum):
    """Where the guest ran until now; its guest tools are installed."""

    VMWARE = "vmware"
    XENSERVER = "xenserver"
    NUTANIX = "nutanix"
    PARALLELS = "parallels"
    KVM = "kvm"
    """An old virtio host: drivers and agents of the time before today's."""
    HYPERV = "hyperv"
    NONE = "none"
    """A physical machine."""


class Provisioning(StrEnum):
    """What made machines of the image until now."""

    PVS = "pvs"
    MCS = "mcs"
    NONE = "none"


class Firmware(StrEnum):
    """What the guest starts by; it decides partition table, boot store and loader."""

    UEFI = "uefi"
    BIOS = "bios"


@dataclass(frozen=True, slots=True)
class GuestKind:
    """One kind of guest; the default is the sample vDisk."""

    system: System = System.WIN11
    platform: Platform = Platform.VMWARE
    provisioning: Provisioning = Provisioning.PVS
    firmware: Firmware = Firmware.UEFI

    def __str__(self) -> str:
        return f"{self.system}-{self.platform}-{self.provisioning}-{self.firmware}"


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """What differs by release beyond its registry texts."""

    file_build: str
    """Build number in the versions of its files: 23H2 is 22631 and its files say 22621."""
    title: str
    """As its boot entry names it."""
    computer_name: str


SYSTEM_FACTS: dict[System, SystemFacts] = {
    System.WIN10: SystemFacts("19041", "Windows 10", "GOLD-W10"),
    System.WIN11: SystemFacts("22621", "Windows 11", "GOLD-W11"),
    System.SERVER2016: SystemFacts("14393", "Windows Server 2016", "GOLD-S16"),
    System.SERVER2019: SystemFacts("17763", "Windows Server", "GOLD-S19"),
    System.SERVER2022: SystemFacts("20348", "Windows Server", "GOLD-S22"),
    System.SERVER2025: SystemFacts("26100", "Windows Server", "GOLD-S25"),
}
