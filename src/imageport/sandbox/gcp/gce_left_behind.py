"""What an earlier process of the same root left half done."""

from __future__ import annotations

from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_table import PRIVATE

_HALF: dict[str, tuple[str, ...]] = {
    "disks": ("CREATING", "DELETING"),
    "images": ("PENDING", "DELETING"),
}
"""States that nothing ends any more."""


def take_up(compute: Compute) -> None:
    """End what was being made or deleted; machines are gone, so nothing is attached."""
    kept = set()
    for kind, states in _HALF.items():
        for path, document in list(compute.table.of_type(kind)):
            if document["status"] in states:
                compute.file(document).unlink(missing_ok=True)
                compute.table.drop(path)
                continue
            kept.add(compute.file(document).name)
            if document.pop("users", None):
                compute.table.put(path, document)
    for path, rule in list(compute.table.of_type("firewalls")):
        if not rule[PRIVATE]["applies"]:
            compute.table.drop(path)
    for file in compute.folder.iterdir():
        if file.name not in kept:
            file.unlink()
