# References: azure.microsoft.com/pricing: Managed Disks, Virtual Machines (Linux), Bandwidth.
"""What a run costs, by a table that is dated so that it can be checked and corrected.

No line has a Windows licence: the boot machine is made from a disk, without ``licenseType`` and
without a marketplace image, so Azure counts the base rate only. The image's own licence is the
operator's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Final

from imageport.cloud import CostLine
from imageport.model import GIB, MIB

PRICES_AS_OF: Final = "2026-01"
PRICES_REGION: Final = "eastus"
"""List prices in US dollars, locally redundant; other regions are up to about 40 % above."""

TIER_GIB: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32767)
"""A managed disk costs as much as the smallest tier that holds it."""
USD_PER_DISK_MONTH: Final = {
    "Standard_LRS": (
        1.54, 3.01, 5.89, 11.33, 21.76, 40.96, 77.83, 143.36, 262.14, 524.29, 1048.58,
    ),
    "StandardSSD_LRS": (
        2.40, 4.80, 9.60, 19.20, 38.40, 76.80, 153.60, 307.20, 614.40, 1228.80, 2457.60,
    ),
    "Premium_LRS": (
        5.28, 10.21, 19.71, 38.02, 73.22, 135.17, 259.05, 495.57, 946.08, 1802.06, 3604.11,
    ),
}  # fmt: skip
USD_PER_OPERATION: Final = 0.0005 / 10_000
"""Standard HDD; an operation counts once whatever its size."""
USD_PER_SNAPSHOT_GIB_MONTH: Final = 0.05
"""Incremental snapshots lie on Standard HDD whatever their disk was; only what is used counts."""
USD_PER_MACHINE_MINUTE: Final = 0.096 / 60
"""Standard_D2s_v5 at the Linux rate, which is the rate without any licence."""
USD_PER_EGRESS_GIB: Final = 0.087
"""To the internet, above the free 100 GB of a month."""

HOURS_PER_MONTH: Final = 730.0
BYTES_PER_SECOND: Final = 60 * MIB
"""What a Standard HDD below 8 TiB takes while it is uploaded."""
ENGINE_MINUTES: Final = 30.0
"""Two jobs: compose before the boot, verdict after it."""
BOOT_MINUTES: Final = 30.0
DISK_HOURS: Final = 2.0
PUT_BYTES: Final = 4 * MIB


def estimate(
    data_bytes: int, size_bytes: int, *, disk_sku: str = "StandardSSD_LRS", keep_parent: bool = True
) -> list[CostLine]:
    """Return the lines for one run: upload whole, prepare, read everything twice."""
    puts = math.ceil(data_bytes / PUT_BYTES)
    data_gib = data_bytes / GIB
    upload_hours = max(1.0, math.ceil(data_bytes / BYTES_PER_SECOND / 3600))
    note = f"list prices {PRICES_REGION}, {PRICES_AS_OF}"
    parent = ", with the kept parent of the next upload" if keep_parent else ""
    lines = [
        (f"upload: pages written ({note})", float(puts), "requests", USD_PER_OPERATION),
        ("verify and publish: pages read", 2.0 * puts, "requests", USD_PER_OPERATION),
        (
            "upload disk at the Standard HDD rate",
            upload_hours,
            "hours",
            disk_usd_per_month("Standard_LRS", size_bytes) / HOURS_PER_MONTH,
        ),
        (
            f"working disk {disk_sku}",
            DISK_HOURS,
            "hours",
            disk_usd_per_month(disk_sku, size_bytes) / HOURS_PER_MONTH,
        ),
        ("engine machine (Linux)", ENGINE_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        ("boot machine (no Windows licence)", BOOT_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        (
            f"snapshots kept, each month{parent}",
            data_gib * (2 if keep_parent else 1),
            "GiB months",
            USD_PER_SNAPSHOT_GIB_MONTH,
        ),
        # Where the target site lies, nobody here knows: the price is told, not added up.
        (
            f"publish to a site outside Azure: ${USD_PER_EGRESS_GIB} a GiB, not in the sum",
            data_gib,
            "GiB",
            0.0,
        ),
    ]
    return [
        CostLine(item, round(quantity, 2), unit, round(quantity * price, 4))
        for item, quantity, unit, price in lines
    ]


def disk_usd_per_month(sku: str, size_bytes: int) -> float:
    """Return the price of the tier that holds a disk; of the dearest kind when it is unknown."""
    prices = USD_PER_DISK_MONTH.get(sku, USD_PER_DISK_MONTH["Premium_LRS"])
    tier = bisect_left(TIER_GIB, math.ceil(size_bytes / GIB))
    return prices[min(tier, len(prices) - 1)]
