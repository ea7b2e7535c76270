# References: Compute Engine, "Organize resources using labels" (label fingerprint).
"""Renewing when a resource expires: in its label, in an object's metadata."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.names import (
    LABEL_EXPIRES,
    ResourceId,
    expires_label,
    object_id,
    parse_id,
)
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.operations import finished
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, CloudUnavailable

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Operation

LABELLED: Final = ("images", "disks", "instances")
"""Firewall rules have no labels: they keep the expiry that they were made with."""
SECONDS: Final = 60.0

Read = Callable[[], Any]
Write = Callable[[dict[str, Any]], "Operation"]


def write_expiry(account: GcpAccount, resource_id: str, moment: datetime) -> None:
    """Write a new expiry to the resource itself; of kinds that cannot hold one, nothing happens.

    Raises:
        CloudError: it is gone, or Google refuses.
    """
    bucket = object_id(account.settings, "")
    if resource_id.startswith(bucket):
        _write_metadata(account, resource_id.removeprefix(bucket), moment)
        return
    type_ = next((item for item in LABELLED if f"/{item}/" in resource_id), "")
    if not type_:
        return
    named = parse_id(resource_id, type_)
    read, write = _calls(account, named)
    action = f"compute.{type_}.setLabels"

    def once() -> None:
        with asked(f"compute.{type_}.get", resource_id):
            found = read()
        labels = dict(found.labels) | {LABEL_EXPIRES: expires_label(moment)}
        try:
            with asked(action, resource_id):
                operation = write({"labels": labels, "label_fingerprint": found.label_fingerprint})
            finished(account, operation, action, resource_id, deadline_seconds=SECONDS)
        except CloudRefused as error:
            if error.fields.get("status") != 412:
                raise
            # Somebody else's labels came in between: theirs are kept, ours written to them.
            raise CloudUnavailable(error.message, **error.fields) from error

    retried(once)


def _write_metadata(account: GcpAccount, key: str, moment: datetime) -> None:
    """Write the expiry to one object; a job's folder is none, and its objects' age tells."""
    if not key.endswith("/"):
        metadata = {LABEL_EXPIRES: expires_label(moment)}
        retried(lambda: Objects(account).set_metadata(key, metadata))


def _calls(account: GcpAccount, named: ResourceId) -> tuple[Read, Write]:
    """Return how the resource is read, and how its labels are written."""
    clients = account.clients
    zonal: dict[str, Any] = {"project": named.project, "zone": named.zone}
    if named.type == "images":
        images, whole = clients.images, {"project": named.project}
        return (
            lambda: images.get(project=named.project, image=named.name),
            lambda labels: images.set_labels_unary(
                whole | {"resource": named.name, "global_set_labels_request_resource": labels}
            ),
        )
    if named.type == "disks":
        disks = clients.disks
        return (
            lambda: disks.get(zonal | {"disk": named.name}),
            lambda labels: disks.set_labels_unary(
                zonal | {"resource": named.name, "zone_set_labels_request_resource": labels}
            ),
        )
    instances = clients.instances
    return (
        lambda: instances.get(zonal | {"instance": named.name}),
        lambda labels: instances.set_labels_unary(
            zonal | {"instance": named.name, "instances_set_labels_request_resource": labels}
        ),
    )
