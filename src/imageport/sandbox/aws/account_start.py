"""Puts the emulated account together: patches, earlier snapshots, the way from guest to EC2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.ec2.models import EC2Backend

from imageport.sandbox.aws import (
    ec2_capacity,
    ec2_images,
    ec2_instances,
    ec2_snapshots,
    ec2_volumes,
)
from imageport.sandbox.aws.emulator import Emulator, current, start_emulator
from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.aws.machine_states import guest_shut_down
from imageport.sandbox.aws.moto_patches import apply_patches, replaces

PATCHING = (ec2_capacity, ec2_images, ec2_instances, ec2_snapshots, ec2_volumes)
"""Modules whose import registers their patches."""

_moto_backend_init = EC2Backend.__init__


@replaces(EC2Backend, "__init__", "snapshots of earlier runs belong to the region from the start")
def _backend_init(self: Any, region_name: str, account_id: str) -> None:
    _moto_backend_init(self, region_name, account_id)
    ec2_images.show_public_snapshots(self)
    ec2_snapshots.show_saved(current(), self)


def start_account(root: Path, knobs: Knobs) -> tuple[Emulator, Callable[[], None]]:
    """Return the emulator and what saves it at the end."""
    emulator = Emulator(root, knobs)
    start_emulator(emulator)
    apply_patches()
    emulator.hypervisor.on_shutdown = guest_shut_down
    return emulator, lambda: ec2_snapshots.keep_tags(emulator)
