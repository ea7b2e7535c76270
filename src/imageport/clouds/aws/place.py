"""What about the place would stop an image: looked at before anything is created."""

from __future__ import annotations

from imageport.cloud import PlaceProblem
from imageport.clouds.aws.account import Account
from imageport.model import GIB

MAX_VOLUME_GIB = 16384
"""Largest gp3 volume, and largest volume that EBS direct APIs write without extra rights."""


def check_place(account: Account, image: str, size_bytes: int) -> list[PlaceProblem]:
    """Return every problem at once."""
    account.settings.require("subnet_id", "bucket")
    problems = []
    gib = -(-size_bytes // GIB)
    if gib > MAX_VOLUME_GIB:
        problems.append(PlaceProblem(f"size of '{image}'", f"{gib} GiB", f"{MAX_VOLUME_GIB} GiB"))
    return problems
