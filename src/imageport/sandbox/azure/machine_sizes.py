# References: "Sizes for virtual machines in Azure" (Dsv5, Ddsv5, Dasv5, Dsv6, Ebdsv5, Bsv1, Av2,
# Dpsv5); Resource SKUs: capabilities HyperVGenerations, DiskControllerTypes, vCPUs.
"""The machine sizes of the emulated region."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MachineSize:
    """One size, with what decides whether a disk fits it."""

    name: str
    family: str
    vcpus: int
    memory_gib: int
    data_disks: int
    generations: tuple[str, ...] = ("V1", "V2")
    controllers: tuple[str, ...] = ("SCSI",)
    architecture: str = "x64"


SIZES = (
    MachineSize("Standard_A2_v2", "standardAv2Family", 2, 4, 4, generations=("V1",)),
    MachineSize("Standard_B2s", "standardBSFamily", 2, 4, 4),
    MachineSize("Standard_B2ms", "standardBSFamily", 2, 8, 4),
    MachineSize("Standard_D2s_v3", "standardDSv3Family", 2, 8, 4),
    MachineSize("Standard_D2s_v5", "standardDSv5Family", 2, 8, 4),
    MachineSize("Standard_D4s_v5", "standardDSv5Family", 4, 16, 8),
    MachineSize("Standard_D8s_v5", "standardDSv5Family", 8, 32, 16),
    MachineSize("Standard_D2ds_v5", "standardDDSv5Family", 2, 8, 4),
    MachineSize("Standard_D2as_v5", "standardDASv5Family", 2, 8, 4),
    MachineSize(
        "Standard_E2bds_v5", "standardEBDSv5Family", 2, 16, 4, controllers=("SCSI", "NVMe")
    ),
    MachineSize(
        "Standard_D2s_v6", "standardDSv6Family", 2, 8, 8, generations=("V2",),
        controllers=("NVMe",),
    ),
    MachineSize(
        "Standard_D4s_v6", "standardDSv6Family", 4, 16, 12, generations=("V2",),
        controllers=("NVMe",),
    ),
    MachineSize(
        "Standard_D2ps_v5", "standardDPSv5Family", 2, 8, 4, generations=("V2",),
        architecture="Arm64",
    ),
)  # fmt: skip


def find_size(name: str) -> MachineSize | None:
    """Return a size by its name in any case."""
    for size in SIZES:
        if size.name.lower() == name.lower():
            return size
    return None
