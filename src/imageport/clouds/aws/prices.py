"""What a run costs: one dated table, so that an estimate can be checked and corrected."""

from __future__ import annotations

import math

from imageport.cloud import CostLine
from imageport.model import BLOCK_BYTES, GIB

PRICES_AS_OF = "2026-01"
PRICES_REGION = "us-east-1"
"""List prices in US dollars; other regions are up to about 40 % above."""

USD_PER_BLOCK_PUT = 0.006 / 1000
USD_PER_BLOCK_GET = 0.003 / 1000
USD_PER_BLOCK_LIST = 0.0006 / 1000
USD_PER_SNAPSHOT_GIB_MONTH = 0.05
USD_PER_GP3_GIB_MONTH = 0.08
USD_PER_MACHINE_MINUTE = 0.096 / 60
"""m6i.large without a Windows licence: the machine image carries none."""
USD_PER_EGRESS_GIB = 0.09
"""To the internet, above the free 100 GB of a month and below 10 TB."""

HOURS_PER_MONTH = 730.0
ENGINE_MINUTES = 30.0
"""Two jobs: compose before the boot, verdict after it."""
BOOT_MINUTES = 30.0
VOLUME_HOURS = 2.0
BLOCKS_PER_LIST = 2000


def estimate(data_bytes: int, size_bytes: int, *, keep_parent: bool = True) -> list[CostLine]:
    """Return the lines for one run: upload whole, prepare, read everything once to publish."""
    blocks = math.ceil(data_bytes / BLOCK_BYTES)
    lists = 2 * math.ceil(max(1, blocks) / BLOCKS_PER_LIST)
    data_gib, size_gib = data_bytes / GIB, float(max(1, math.ceil(size_bytes / GIB)))
    note = f"list prices {PRICES_REGION}, {PRICES_AS_OF}"
    lines = [
        (f"upload: blocks written ({note})", float(blocks), "blocks", USD_PER_BLOCK_PUT),
        ("verify and publish: blocks read", 2.0 * blocks, "blocks", USD_PER_BLOCK_GET),
        ("block lists", float(lists), "requests", USD_PER_BLOCK_LIST),
        (
            "working volume",
            size_gib * VOLUME_HOURS,
            "GiB hours",
            USD_PER_GP3_GIB_MONTH / HOURS_PER_MONTH,
        ),
        ("engine machine", ENGINE_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        ("boot machine (no Windows licence)", BOOT_MINUTES, "minutes", USD_PER_MACHINE_MINUTE),
        ("prepared snapshot, each month", data_gib, "GiB months", USD_PER_SNAPSHOT_GIB_MONTH),
        (
            "parent kept for the next upload, each month",
            data_gib if keep_parent else 0.0,
            "GiB months",
            USD_PER_SNAPSHOT_GIB_MONTH,
        ),
        # Where the target site lies, nobody here knows: the price is told, not added up.
        (
            f"publish to a site outside AWS: ${USD_PER_EGRESS_GIB} a GiB, not in the sum",
            data_gib,
            "GiB",
            0.0,
        ),
    ]
    return [
        CostLine(item, round(quantity, 2), unit, round(quantity * price, 4))
        for item, quantity, unit, price in lines
    ]
