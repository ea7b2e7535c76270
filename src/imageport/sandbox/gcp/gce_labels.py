# References: Compute Engine, "Organize resources using labels" (label fingerprint).
"""Labels of images, disks and machines."""

from __future__ import annotations

from typing import Final

from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_messages import GceRequest, Json
from imageport.sandbox.gcp.gce_names import check_fingerprint, check_labels, new_fingerprint
from imageport.sandbox.gcp.gce_operations import Work

_NAMED: Final = ("resource", "instance")


def set_labels(compute: Compute, request: GceRequest, collection: str) -> Json:
    """Answer setLabels; what was changed since it was read is refused."""
    name = next(request.fields[member] for member in _NAMED if member in request.fields)
    path = f"{collection}/{name}"
    document = compute.table.require(path)
    labels = request.body.get("labels", {})
    check_labels(labels)
    given = request.body.get("labelFingerprint")
    check_fingerprint(given, document["labelFingerprint"], "labels")
    document["labels"] = dict(labels)
    document["labelFingerprint"] = new_fingerprint()
    compute.table.put(path, document)
    return compute.begin(request, "setLabels", path, Work(lambda: None)).document()
