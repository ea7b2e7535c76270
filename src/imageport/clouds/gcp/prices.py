# References: cloud.google.com/storage/pricing (operations, storage, data transfer),
# cloud.google.com/compute/disks-image-pricing, cloud.google.com/compute/vm-instance-pricing.
"""What a run costs, by a table that is dated so that it can be checked and corrected.

No line has a Windows licence: images are made without Google's licence, so machines from them cost
the base rate only. The image's own licence is the operator's. What goes into Google Cloud is free.
"""

from __future__ import annotations

import math
from typing import Final

from imageport.cloud import CostLine
from imageport.clouds.gcp.settings import GcpSettings
from imageport.model import BLOCK_BYTES, GIB, MIB

PRICES_AS_OF: Final = "2026-01"
PRICES_REGION: Final = "us-central1"
"""List prices in US dollars; other regions are up to about 40 % above."""

USD_PER_CLASS_A: Final = 0.005 / 1000
"""Writing, composing and listing objects of the storage class STANDARD in one region."""
USD_PER_CLASS_B: Final = 0.0004 / 1000
"""Reading objects; deleting them is free."""
USD_PER_OBJECT_GIB_MONTH: Final = 0.020
USD_PER_IMAGE_GIB_MONTH: Final = 0.050
"""An image is charged by the size of its archive, not by that of its disk."""
USD_PER_DISK_GIB_MONTH: Final = {
    "pd-standard": 0.040,
    "pd-balanced": 0.100,
    "pd-ssd": 0.170,
    "hyperdisk-balanced": 0.080,
}
"""Hyperdisk's first 3000 operations and 140 MiB a second cost nothing more."""
USD_PER_MACHINE_MINUTE: Final = 0.0971 / 60
"""n2-standard-2 at the rate without any licence; the engine's e2-standard-2 costs less."""
USD_PER_EGRESS_GIB: Final = 0.12
"""To the internet, the first TiB of a month."""

HOURS_PER_MONTH: Final = 730.0
ENGINE_MINUTES: Final = 30.0
"""Two jobs: compose before the boot, verdict after it."""
BOOT_MINUTES: Final = 30.0
WRITER_BYTES_PER_MINUTE: Final = 60 * 100 * MIB
"""What the machine reads that writes the prepared disk's blocks; a guess, below what disks give."""
DISK_HOURS: Final = 2.0
COMPOSE_SOURCES: Final = 32
OBJECTS_PER_LIST: Final = 1000
PREPARED_SHARE: Final = 0.1
"""How much of an image its preparation and first boot write anew: a guess on the safe side."""


def estimate(settings: GcpSettings, data_bytes: int, size_bytes: int) -> list[CostLine]:
    """Return the lines for one run: upload whole, prepare, read everything twice."""
    blocks, size_gib = math.ceil(data_bytes / BLOCK_BYTES), float(math.ceil(size_bytes / GIB))
    data_gib = data_bytes / GIB
    note = f"list prices {PRICES_REGION}, {PRICES_AS_OF}"
    writer_minutes = 2.0 + size_bytes / WRITER_BYTES_PER_MINUTE
    disk_hour = usd_per_disk_gib_month(settings.disk_type) / HOURS_PER_MONTH
    lines = [
        (f"upload: {_way(settings)} ({note})", _class_a(settings, blocks), "operations",
         USD_PER_CLASS_A),
        ("prepared disk: blocks written", math.ceil(blocks * _new_share(settings)), "operations",
         USD_PER_CLASS_A),
        ("verify and publish: blocks read", 2.0 * blocks, "operations", USD_PER_CLASS_B),
        (f"working disk {settings.disk_type}", size_gib * DISK_HOURS, "GiB hours", disk_hour),
        ("engine machine (Linux)", ENGINE_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        ("boot machine (no Windows licence)", BOOT_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        ("machine that writes the prepared disk's blocks", writer_minutes, "minutes",
         USD_PER_MACHINE_MINUTE),
        *_monthly(settings, data_gib, size_gib),
        # Where the target site lies, nobody here knows: the price is told, not added up.
        (f"publish to a site outside Google Cloud: ${USD_PER_EGRESS_GIB} a GiB, not in the sum",
         data_gib, "GiB", 0.0),
    ]  # fmt: skip
    return [
        CostLine(item, round(quantity, 2), unit, round(quantity * price, 4))
        for item, quantity, unit, price in lines
    ]


def usd_per_disk_gib_month(disk_type: str) -> float:
    """Return the price of a disk type; of the dearest when it is unknown."""
    return USD_PER_DISK_GIB_MONTH.get(disk_type, max(USD_PER_DISK_GIB_MONTH.values()))


def class_a_operations(blocks_sent: int, blocks: int) -> int:
    """Return what one upload by segments takes: writing, listing, composing a disk of ``blocks``.

    What the bucket holds is listed in 16 lists at the beginning and again before the joining; what
    it holds of other images comes to that, a list for every 1000 blocks. The tree of composes has
    a node for every 32 of what lies below it, until one is left; head, foot, index and marker are
    four objects more.
    """
    listing = 2 * (16 + math.ceil(blocks / OBJECTS_PER_LIST))
    composing, level = 0, blocks + 2
    while level > 1:
        level = math.ceil(level / COMPOSE_SOURCES)
        composing += level
    return blocks_sent + listing + composing + 4


def _way(settings: GcpSettings) -> str:
    if settings.archive == "stream":
        return "one archive in one stream"
    return "segments written, listed and composed"


def _new_share(settings: GcpSettings) -> float:
    """Return how much of a prepared disk is written: all of it where no segments of U lie."""
    return PREPARED_SHARE if settings.archive == "segments" else 1.0


def _class_a(settings: GcpSettings, blocks: int) -> float:
    if settings.archive == "stream":
        return 3.0  # the upload counts once whatever its size; index and marker beside it
    return float(class_a_operations(blocks, blocks))


def _monthly(
    settings: GcpSettings, data_gib: float, size_gib: float
) -> list[tuple[str, float, str, float]]:
    """Return what stays: U and P as images, their blocks in the bucket, the stopped machine."""
    parent = ", with the kept parent of the next upload" if settings.keep_parent else ""
    images = data_gib * (2 if settings.keep_parent else 1)
    of_upload = data_gib if settings.archive == "segments" else 0.0
    of_prepared = data_gib * _new_share(settings)
    lines = [
        (f"images kept, each month{parent}", images, "GiB months", USD_PER_IMAGE_GIB_MONTH),
        ("their blocks in the bucket, each month", of_upload + of_prepared, "GiB months",
         USD_PER_OBJECT_GIB_MONTH),
    ]  # fmt: skip
    if settings.keep_stopped_vm:
        price = usd_per_disk_gib_month(settings.disk_type)
        lines.append(("disk of the stopped machine, each month", size_gib, "GiB months", price))
    return lines
