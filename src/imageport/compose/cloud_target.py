"""What a target cloud's machines need from a guest, as data."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.errors import InputError


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


TARGETS: dict[str, CloudTarget] = {
    "aws": CloudTarget(
        "aws",
        boot_drivers=("stornvme",),
        # ENA; EC20 is what current instances show, EC21 the same device with a different PF.
        nic_ids=("PCI\\VEN_1D0F&DEV_EC20", "PCI\\VEN_1D0F&DEV_EC21"),
        time_server="169.254.169.123",
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
