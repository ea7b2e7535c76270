# References: Compute Engine, "Detach and reattach boot disks"; REST v1 "instances.attachDisk".
"""A stopped machine with a prepared disk, beside each prepared image: machine catalogs want one.

The prepared disk must not boot a second time before the catalog does it. No machine is ever made
stopped, so it starts from an empty disk, which boots nothing, in the network that reaches nothing,
is stopped, and its boot disk is swapped then. Machine and disk have the image's name, and go with
the image.
"""

from __future__ import annotations

from typing import Any, Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.disks import delete_disk, describe_disk, disk_of_intent
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.images import GUEST_OS_FEATURES
from imageport.clouds.gcp.instances import (
    STATE_SECONDS,
    MachinePlan,
    delete_machine,
    describe_machine,
    insert_machine,
    stop_machine,
    wait_started,
)
from imageport.clouds.gcp.names import ResourceId, zonal_id
from imageport.clouds.gcp.network import isolated_rules, require_isolation
from imageport.clouds.gcp.operations import finished
from imageport.clouds.gcp.zones import zones_of_region
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_PREPARED
from imageport.clouds.waiting import retried

BLANK_GIB: Final = 10
"""Least that every type of disk takes."""
_BLANK: Final = {
    "size_gb": BLANK_GIB,
    # Newer series take no disk whose system does not speak their network card.
    "guest_os_features": [{"type_": feature} for feature in GUEST_OS_FEATURES],
}
BLANK_DEVICE: Final = "imageport-blank"
PREPARED_DEVICE: Final = "imageport-prepared"


def keep_stopped_machine(account: GcpAccount, image: str) -> None:
    """Make the stopped machine of a prepared image; again, after a crash too, is harmless."""
    account.settings.require("subnet")
    require_isolation(account)
    machine_id = zonal_id(account.settings, "instances", account.own(image, "images").name)
    machine = account.intend("instance", ROLE_PREPARED, image)
    disk_id = _disk(account, ROLE_PREPARED, image, {"source_image": image})
    if PREPARED_DEVICE not in _devices(account, machine_id):
        _make_stopped(account, machine_id, machine, image)
        retried(lambda: _swap(account, machine_id, disk_id))
    account.record(machine, machine_id)
    # From here on both belong to the image, as its index does: no run owns them any more.
    for made in (machine_id, disk_id):
        account.mark(made, "released")


def delete_stopped_machine(account: GcpAccount, image: str) -> None:
    """Delete machine and disk of an image, in whatever zone of the region; none is no error."""
    named = account.own(image, "images")
    for zone in zones_of_region(account):
        delete_machine(account, str(ResourceId(named.project, zone, "instances", named.name)))
        disk_id = str(ResourceId(named.project, zone, "disks", named.name))
        if describe_disk(account, disk_id) is not None:
            delete_disk(account, disk_id)


def _make_stopped(account: GcpAccount, machine_id: str, machine: Intent, image: str) -> None:
    """Make the machine with an empty disk and stop it; skips what a killed call has done."""
    rules = isolated_rules(account)
    try:
        rules.make()
        if describe_machine(account, machine_id) is None:
            blank = _disk(account, "blank", image, _BLANK)
            insert_machine(account, machine_id, machine, _plan(account, blank, rules.tags))
        account.record(machine, machine_id)
        wait_started(account, machine_id)
        stop_machine(account, machine_id)
    finally:
        account.undo_all([(", ".join(rules.tags), rules.remove)])


def _disk(account: GcpAccount, role: str, image: str, source: dict[str, Any]) -> str:
    """Make a disk for an image, or find it; the prepared one has the image's name."""
    intent = account.intend("disk", role, image)
    name = account.own(image, "images").name if role == ROLE_PREPARED else ""
    facts = disk_of_intent(account, intent, source, name=name)
    return _disk(account, role, image, source) if facts is None else facts.id


def _plan(account: GcpAccount, blank: str, network_tags: tuple[str, ...]) -> MachinePlan:
    settings = account.settings
    disk = {"source": blank, "boot": True, "auto_delete": True, "device_name": BLANK_DEVICE}
    return MachinePlan(
        machine_type=settings.boot_machine_type,
        subnet=settings.boot_subnet or settings.subnet,
        network_tags=network_tags,
        disks=[disk],
        # It would end whatever a catalog or a person starts the machine for later. One whose maker
        # died is the sweep's, and boots nothing until then.
        max_run_seconds=0.0,
    )


def _swap(account: GcpAccount, machine_id: str, disk_id: str) -> None:
    """Give the stopped machine the prepared disk in place of the empty one, which is deleted."""
    devices = _devices(account, machine_id)
    named = account.own(machine_id, "instances")
    request: dict[str, Any] = {
        "project": named.project, "zone": named.zone, "instance": named.name,
    }  # fmt: skip
    instances = account.clients.instances
    if BLANK_DEVICE in devices:
        action = "compute.instances.detachDisk"
        detached = request | {"device_name": BLANK_DEVICE}
        with asked(action, machine_id):
            operation = instances.detach_disk_unary(detached)
        finished(account, operation, action, machine_id, deadline_seconds=STATE_SECONDS)
        delete_disk(account, devices[BLANK_DEVICE])
    if PREPARED_DEVICE not in devices:
        action = "compute.instances.attachDisk"
        disk = {
            "source": disk_id, "boot": True, "auto_delete": True, "device_name": PREPARED_DEVICE,
        }  # fmt: skip
        attached = request | {"attached_disk_resource": disk}
        with asked(action, machine_id):
            operation = instances.attach_disk_unary(attached)
        finished(account, operation, action, machine_id, deadline_seconds=STATE_SECONDS)


def _devices(account: GcpAccount, machine_id: str) -> dict[str, str]:
    facts = describe_machine(account, machine_id)
    return {} if facts is None else facts.disks
