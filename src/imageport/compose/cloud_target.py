"""What a target cloud's machines need from a guest, as data."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.errors import InputError

NVME_ID = "PCI\\CC_010802"
"""Any NVMe controller, by its class; what EBS volumes and Azure's NVMe disks are behind."""


@dataclass(frozen=True, slots=True)
class CloudTarget:
    """Facts of one cloud.

    ``boot_drivers`` must start at boot; ``nic_ids`` are hardware ids of its network adapters of
    which one must have a driver.
    """

    name: str
    boot_drivers: tuple[str, ...]
    nic_ids: tuple[str, ...]
    time_server: str
    """Address that W32Time asks; "" = the host tells the time (Hyper-V's time provider)."""
    boot_devices: tuple[tuple[str, ...], ...] = ((NVME_ID,),)
    """What the driver database must bind to a service before a volume can be read; of the names of
    one device any will do."""
    old_boot_drivers: tuple[str, ...] = ()
    """Start at boot too where the system has them; a machine boots without."""
    faster_nic_ids: tuple[tuple[str, str], ...] = ()
    """(hardware id, name) of adapters that only add speed: told in the verdict, never needed."""
    is_uefi_only: bool = False
    """Also for machine catalogs, which elsewhere may boot by BIOS."""
    nic_hint: str = ""
    """What to do when no driver serves ``nic_ids``, where that differs from the usual."""
    added_boot_drivers: tuple[str, ...] = ()
    """Those of ``boot_drivers`` that are no part of Windows: image or payload must bring them."""


TARGETS: dict[str, CloudTarget] = {
    "aws": CloudTarget(
        "aws",
        boot_drivers=("pci", "stornvme"),
        # ENA; EC20 is what current instances show, EC21 the same device with a different PF.
        nic_ids=("PCI\\VEN_1D0F&DEV_EC20", "PCI\\VEN_1D0F&DEV_EC21"),
        time_server="169.254.169.123",
    ),
    "azure": CloudTarget(
        "azure",
        # VMBus, its storage and the storage accelerator for SCSI sizes. NVMe sizes show their
        # controllers behind Hyper-V's virtual PCI bus, which real Windows 10 starts on demand (3):
        # too late for the disk it boots from. An image declares both, so both must boot.
        # Images from Hyper-V, whose generation 2 has no PCI of its own, have an override under pci.
        boot_drivers=("vmbus", "storvsc", "storflt", "vpci", "pci", "stornvme"),
        # The synthetic adapter, by VMBus' class of network devices; every Azure machine has it.
        nic_ids=("VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}",),
        time_server="",
        boot_devices=(
            # Hosts name VMBus MSFT1000 since 2026; Windows 10 1709 knows the old name only, and
            # Microsoft says that Server 2016 and later start all the same.
            ("ACPI\\VMBus", "ACPI\\MSFT1000"),
            ("VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}",),  # synthetic SCSI controller
            ("VMBUS\\{44c4f61d-4444-4400-9d52-802e27ede19f}",),  # virtual PCI bus
            (NVME_ID,),
        ),
        old_boot_drivers=("intelide", "atapi"),
        # Accelerated Networking: a second device beside the synthetic adapter. Reference: pci.ids.
        faster_nic_ids=(
            ("PCI\\VEN_1414&DEV_00BA", "Microsoft Azure Network Adapter (MANA)"),
            ("PCI\\VEN_15B3&DEV_1004", "Mellanox ConnectX-3 virtual function"),
            ("PCI\\VEN_15B3&DEV_1016", "Mellanox ConnectX-4 Lx virtual function"),
            ("PCI\\VEN_15B3&DEV_1018", "Mellanox ConnectX-5 virtual function"),
        ),
        is_uefi_only=True,
        nic_hint="Azure's adapter is served by netvsc, a part of Windows: repair the image with "
        "`DISM /Online /Cleanup-Image /RestoreHealth`, or take one that was not stripped.",
    ),
    "gcp": CloudTarget(
        "gcp",
        # Machine series of two kinds: disks behind virtio SCSI, and (third generation) NVMe.
        # An image serves both, so both must boot.
        boot_drivers=("pci", "vioscsi", "stornvme"),
        nic_ids=(
            "PCI\\VEN_1AF4&DEV_1000",  # virtio network adapter, transitional
            "PCI\\VEN_1AF4&DEV_1041",  # the same, virtio 1.0
            "PCI\\VEN_1AE0&DEV_0042",  # gVNIC. Reference: Linux, gve.rst, "Supported Hardware".
        ),
        time_server="metadata.google.internal",
        boot_devices=(
            ("PCI\\VEN_1AF4&DEV_1004", "PCI\\VEN_1AF4&DEV_1048"),  # virtio SCSI, both forms
            (NVME_ID,),
        ),
        nic_hint="Put the package of Google's network driver (gVNIC, or netkvm for the first and "
        "second machine generation) into the site's payload folder and name it in the options.",
        added_boot_drivers=("vioscsi",),
    ),
}

INBOX_STORAGE = ("stornvme", "storahci", "intelide", "atapi", "vmbus", "storvsc", "storflt")
"""Windows' own drivers under which a StartOverride of the old hardware may lie."""


def cloud_target(name: str) -> CloudTarget:
    """Return a cloud's facts.

    Raises:
        InputError: this release prepares for no such cloud.
    """
    if name not in TARGETS:
        raise InputError(f"Bad cloud: found '{name}', needed one of {', '.join(sorted(TARGETS))}.")
    return TARGETS[name]
