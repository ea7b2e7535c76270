# References: Compute Engine REST v1, "instances.insert" (disks), "attachDisk", "detachDisk";
# "Detach and reattach boot disks"; "Share a disk between VMs" (read-only).
"""The disks of machines: which, how, and what the machine sees of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imageport.sandbox.gcp import gce_disks
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_machine_checks import BootFacts
from imageport.sandbox.gcp.gce_machine_types import MOST_DISKS, MachineType, find_type
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    in_use,
    invalid,
    not_ready,
    required,
)
from imageport.sandbox.gcp.gce_names import link, name_of, path_of
from imageport.sandbox.gcp.gce_operations import Work
from imageport.sandbox.gcp.gce_table import PRIVATE

MODES: Final = ("READ_WRITE", "READ_ONLY")
_DEVICE_NAME: Final = re.compile(r"[a-z](?:[-a-z0-9_]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Attachment:
    """One disk of a machine that is being made, or gets it."""

    path: str
    entry: Json
    """As the machine shows it."""
    made: tuple[Json, Work] | None = None
    """The disk that is made with the machine, and how."""


def check_disks(compute: Compute, path: str, body: Json, kind: MachineType) -> list[Attachment]:
    """Return the disks of a new machine; those that are made with it are not in the table yet."""
    given = body.get("disks", [])
    if not given or not given[0].get("boot"):
        text = "Boot disk must be the first disk attached to the instance."
        raise invalid("resource.disks", len(given), text)
    if sum(1 for item in given if item.get("boot")) > 1:
        raise invalid("resource.disks", len(given), "Only one boot disk is allowed.")
    if len(given) > MOST_DISKS:
        raise invalid("resource.disks", len(given), f"At most {MOST_DISKS} are allowed.")
    names = [str(item.get("deviceName") or f"persistent-disk-{i}") for i, item in enumerate(given)]
    for name in names:
        _check_device_name(name, [one for one in names if one == name][1:])
    # What exists first: what is made cannot be taken back by a later refusal.
    existing = {
        index: _existing(compute, index, item, names[index], kind)
        for index, item in enumerate(given)
        if "initializeParams" not in item
    }
    found = [
        existing[index] if index in existing
        else _new(compute, path, (index, names[index]), item, kind)
        for index, item in enumerate(given)
    ]  # fmt: skip
    paths = [item.path for item in found]
    if len(set(paths)) < len(paths):
        raise invalid("resource.disks.source", paths, "A disk can be attached once.")
    gce_disks.check_room(compute, [item.made[0] for item in found if item.made is not None])
    return found


def boot_facts(compute: Compute, attachments: list[Attachment]) -> BootFacts:
    """Return what the machine boots from."""
    first = attachments[0]
    disk = first.made[0] if first.made else compute.table.require(first.path)
    features = frozenset(item["type"] for item in disk.get("guestOsFeatures", []))
    return BootFacts(features, disk["architecture"])


def attach(compute: Compute, request: GceRequest) -> Json:
    """Answer attachDisk: at any time, the boot disk of a machine that is off alone."""
    path, machine = _machine(compute, request)
    kind = find_type(name_of(machine["machineType"]))
    if kind is None or machine["status"] not in {"RUNNING", "TERMINATED"}:
        raise not_ready(path)
    given, disks = request.body, machine["disks"]
    index = next(i for i in range(MOST_DISKS) if i not in {item["index"] for item in disks})
    name = str(given.get("deviceName") or f"persistent-disk-{index}")
    _check_device_name(name, [item["deviceName"] for item in disks])
    if given.get("boot"):
        if machine["status"] != "TERMINATED":
            text = "A boot disk can be attached to an instance that is stopped alone."
            raise GceRefusal(400, "invalid", text)
        if any(item["boot"] for item in disks):
            raise invalid("resource.boot", value=True, text="The instance has a boot disk.")
    attachment = _existing(compute, index, given, name, kind)
    if any(item["source"] == attachment.entry["source"] for item in disks):
        raise in_use(attachment.path, path)
    _take(compute, path, machine, attachment)
    machine["disks"].sort(key=lambda item: (not item["boot"], item["index"]))

    def finish() -> None:
        if machine["status"] == "RUNNING":
            file = compute.file(compute.table.require(attachment.path))
            compute.hypervisor.plug(machine[PRIVATE]["machine"], _device(name), file)

    def failed() -> None:
        _release(compute, path, machine, attachment.entry)

    return compute.begin(request, "attachDisk", path, Work(finish, failed)).document()


def detach(compute: Compute, request: GceRequest) -> Json:
    """Answer detachDisk; the boot disk of a machine that is off alone."""
    path, machine = _machine(compute, request)
    name = request.fields.get("deviceName", "")
    entry = next((item for item in machine["disks"] if item["deviceName"] == name), None)
    if entry is None:
        text = f"No attached disk found with device name '{name}'"
        raise invalid("deviceName", name, text)
    if machine["status"] not in {"RUNNING", "TERMINATED"}:
        raise not_ready(path)
    if entry["boot"] and machine["status"] != "TERMINATED":
        text = "The boot disk of an instance that is not stopped cannot be detached."
        raise GceRefusal(400, "invalid", text)

    def finish() -> None:
        compute.hypervisor.unplug(machine[PRIVATE]["machine"], _device(name))
        _release(compute, path, machine, entry)

    return compute.begin(request, "detachDisk", path, Work(finish)).document()


def take_all(compute: Compute, path: str, machine: Json, attachments: list[Attachment]) -> None:
    """Give a new machine its disks; nothing is refused any more."""
    for item in attachments:
        if item.made is not None:
            compute.table.put(item.path, item.made[0])
        _take(compute, path, machine, item)


def release_all(compute: Compute, path: str, machine: Json, *, removes: bool = True) -> None:
    """Free the disks of a machine that goes; ``removes`` those that go with it."""
    for entry in list(machine["disks"]):
        _release(compute, path, machine, entry)
        if removes and entry["autoDelete"]:
            gce_disks.remove(compute, path_of(entry["source"], "source"))


def devices(compute: Compute, machine: Json) -> dict[str, Path]:
    """Return what a machine sees below ``/dev``: name and file of each disk."""
    found = {}
    for entry in machine["disks"]:
        disk = compute.table.require(path_of(entry["source"], "source"))
        found[_device(entry["deviceName"])] = compute.file(disk)
    return found


def boot_disk(compute: Compute, machine: Json) -> Json | None:
    """Return the disk that a machine boots from; None without one."""
    entry = next((item for item in machine["disks"] if item["boot"]), None)
    return None if entry is None else compute.table.get(path_of(entry["source"], "source"))


def _device(name: str) -> str:
    return f"disk/by-id/google-{name}"


def _machine(compute: Compute, request: GceRequest) -> tuple[str, Json]:
    name = request.fields["instance"]
    path = f"projects/{request.project}/zones/{request.zone}/instances/{name}"
    return path, compute.table.require(path)


def _take(compute: Compute, path: str, machine: Json, item: Attachment) -> None:
    machine["disks"].append(item.entry)
    gce_disks.set_users(compute, item.path, path, used=True)


def _release(compute: Compute, path: str, machine: Json, entry: Json) -> None:
    machine["disks"] = [item for item in machine["disks"] if item is not entry]
    gce_disks.set_users(compute, path_of(entry["source"], "source"), path, used=False)


def _check_device_name(name: str, others: list[str]) -> None:
    if not _DEVICE_NAME.fullmatch(name):
        text = f"Must be a match of regex '{_DEVICE_NAME.pattern}'"
        raise invalid("resource.disks.deviceName", name, text)
    if name in others:
        raise invalid("resource.disks.deviceName", name, "Device names have to be unique.")


def _existing(
    compute: Compute, index: int, given: Json, name: str, kind: MachineType
) -> Attachment:
    text = str(given.get("source", ""))
    if not text:
        raise required(f"resource.disks[{index}].source")
    path = path_of(text, f"resource.disks[{index}].source")
    disk = compute.table.get(path)
    if disk is None or "/disks/" not in path:
        unknown = "The referenced disk resource cannot be found."
        raise invalid(f"resource.disks[{index}].source", text, unknown)
    mode = _mode(given, index)
    reads_only = mode == "READ_ONLY"
    permission = "compute.disks.useReadOnly" if reads_only else "compute.disks.use"
    compute.check(permission, path)
    if disk["status"] != "READY":
        raise not_ready(path)
    for user in disk.get("users", []):
        other = path_of(user, "users")
        if not reads_only or _mode_of(compute, other, path) != "READ_ONLY":
            raise in_use(path, other)
    _check_type(disk, kind)
    return Attachment(path, _entry(given, index, name, kind, mode) | _facts(disk, path))


def _new(
    compute: Compute, machine: str, place: tuple[int, str], given: Json, kind: MachineType
) -> Attachment:
    index, name = place
    if given.get("source"):
        text = "source and initializeParams exclude each other."
        raise invalid(f"resource.disks[{index}].source", given["source"], text)
    if _mode(given, index) != "READ_WRITE":
        raise invalid(f"resource.disks[{index}].mode", given["mode"], "Must be READ_WRITE.")
    params = given["initializeParams"]
    usual = name_of(machine) if not index else f"{name_of(machine)}-{index}"
    zone = "/".join(machine.split("/")[:4])
    path = f"{zone}/disks/{params.get('diskName', usual)}"
    compute.check("compute.disks.create", path)
    members = {
        "sourceImage": "sourceImage", "diskType": "type", "diskSizeGb": "sizeGb",
        "labels": "labels", "description": "description", "architecture": "architecture",
    }  # fmt: skip
    unknown = set(params) - {*members, "diskName"}
    if unknown:
        text = f"The sandbox makes no disks with {', '.join(sorted(unknown))}."
        raise invalid(f"resource.disks[{index}].initializeParams", sorted(unknown), text)
    body = {members[key]: value for key, value in params.items() if key in members}
    if "diskEncryptionKey" in given:
        body["diskEncryptionKey"] = given["diskEncryptionKey"]
    disk, work = gce_disks.new_disk(compute, path, body)
    _check_type(disk, kind)
    entry = _entry(given, index, name, kind, "READ_WRITE") | _facts(disk, path)
    return Attachment(path, entry, (disk, work))


def _entry(given: Json, index: int, name: str, kind: MachineType, mode: str) -> Json:
    asked = given.get("interface", kind.disk_interface)
    if asked != kind.disk_interface:
        text = f"Machine type {kind.name} has {kind.disk_interface} disks."
        raise invalid(f"resource.disks[{index}].interface", asked, text)
    return {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": mode,
        "deviceName": name,
        "index": index,
        "boot": bool(given.get("boot", False)),
        "autoDelete": bool(given.get("autoDelete", False)),
        "interface": asked,
    }


def _facts(disk: Json, path: str) -> Json:
    return {
        "source": link(path),
        "diskSizeGb": disk["sizeGb"],
        "guestOsFeatures": disk.get("guestOsFeatures", []),
        "architecture": disk["architecture"],
    }


def _mode(given: Json, index: int) -> str:
    mode = str(given.get("mode", "READ_WRITE"))
    if mode not in MODES or (given.get("boot") and mode != "READ_WRITE"):
        raise invalid(f"resource.disks[{index}].mode", mode, "Not for this disk.")
    return mode


def _mode_of(compute: Compute, machine: str, disk: str) -> str:
    entries = compute.table.require(machine)["disks"]
    return str(next(item["mode"] for item in entries if item["source"] == link(disk)))


def _check_type(disk: Json, kind: MachineType) -> None:
    name = name_of(disk["type"])
    if name not in kind.disk_types:
        text = f"[{name}] features and [instance_type: {kind.name}] are not compatible."
        raise GceRefusal(400, "badRequest", text)
