"""What an earlier process of the same root left half done."""

from __future__ import annotations

from imageport.sandbox.azure.disk_errors import DiskError
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.managed_disks import TYPE as DISKS
from imageport.sandbox.azure.managed_snapshots import TYPE as SNAPSHOTS


def take_up(emulator: Emulator) -> None:
    """End what was being made or deleted; machines are gone, so nothing is attached."""
    for kind in (DISKS, SNAPSHOTS):
        for document in list(emulator.resources.of_type(kind)):
            key = str(document["id"]).lower()
            properties = document["properties"]
            try:
                emulator.store.state(key)
            except DiskError:
                emulator.resources.drop(key)  # its bytes were never there, or are gone
                continue
            emulator.store.set_attached(key, attached=False)
            if properties["provisioningState"] == "Deleting":
                emulator.store.delete(key)
                emulator.resources.drop(key)
                continue
            properties["provisioningState"] = "Succeeded"
            if kind == SNAPSHOTS:
                properties["completionPercent"] = 100.0
            emulator.resources.put(document)
