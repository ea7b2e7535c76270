# References: Compute Engine REST v1, "instances": insert, get, list, setLabels, setTags,
# setMetadata, getSerialPortOutput, getScreenshot.
"""Machines: made, changed, shown."""

from __future__ import annotations

import base64
import uuid
from typing import Final

from imageport.sandbox.gcp import gce_attachments, gce_disks, gce_power
from imageport.sandbox.gcp.gce_attachments import Attachment
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_machine_checks import (
    KEPT,
    check_accounts,
    check_body,
    check_fit,
    check_interfaces,
    check_machine_type,
    check_metadata,
    check_tags,
)
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    already_exists,
    invalid,
    not_ready,
)
from imageport.sandbox.gcp.gce_names import check_fingerprint, check_name, link, path_of
from imageport.sandbox.gcp.gce_operations import Work
from imageport.sandbox.gcp.gce_table import PRIVATE, shown
from imageport.sandbox.machines.screenshot import BLACK_JPEG

SERIAL_BYTES: Final = 1024 * 1024
"""The newest of a serial port's output that Google keeps."""
SERIAL_PORTS: Final = range(1, 5)
_EXTRA: Final = {"labels": "setLabels", "tags": "setTags", "metadata": "setMetadata"}
"""Members that need a permission of their own."""


def insert(compute: Compute, request: GceRequest) -> Json:
    """Answer POST: a machine with all its disks, or nothing at all."""
    body = request.body
    path = f"{_collection(request)}/{check_name(body)}"
    check_body(body)
    kind = check_machine_type(body)
    if compute.table.get(path) is not None:
        raise already_exists(path)
    for member, permission in _EXTRA.items():
        if body.get(member):
            compute.check(f"compute.instances.{permission}", path)
    check_accounts(compute, body)
    interfaces = check_interfaces(compute, body)
    machine = compute.new("instance", path, {name: body[name] for name in KEPT if name in body})
    machine |= {
        "zone": link(_collection(request).rsplit("/", 1)[0]),
        "machineType": link(path_of(body["machineType"], "resource.machineType")),
        "status": "PROVISIONING",
        "networkInterfaces": interfaces,
        "tags": check_tags(body.get("tags", {})),
        "metadata": check_metadata(body.get("metadata", {})),
        "scheduling": {"automaticRestart": True, "onHostMaintenance": "MIGRATE"}
        | body.get("scheduling", {}),
        "disks": [],
    }
    machine[PRIVATE] = {
        # A machine that is made again under the same name is another one.
        "machine": f"{machine['name']}-{uuid.uuid4().hex[:8]}",
        "path": path,
        "step": 0,
    }
    disks = gce_attachments.check_disks(compute, path, body, kind)
    check_fit(kind, body, interfaces, gce_attachments.boot_facts(compute, disks))
    compute.table.put(path, machine)
    gce_attachments.take_all(compute, path, machine, disks)
    return compute.begin(request, "insert", path, _making(compute, path, machine, disks)).document()


def _making(compute: Compute, path: str, machine: Json, disks: list[Attachment]) -> Work:
    made = [item.made[1] for item in disks if item.made is not None]
    left = list(made)

    def before() -> None:
        for work in made:
            if work.before is not None:
                work.before()

    def finish() -> None:
        while left:
            left.pop().finish()
        gce_power.switch_on(compute, machine)

    def failed() -> None:
        gce_attachments.release_all(compute, path, machine, removes=False)
        for item in disks:
            if item.made is not None:
                gce_disks.remove(compute, item.path)
        compute.table.drop(path)

    return Work(finish, failed, before, tuple(item for work in made for item in work.warnings))


def get(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a machine."""
    return shown(_find(compute, request)[1])


def list_machines(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the machines of a zone."""
    path = _collection(request)
    return page_of(request, "instanceList", path, (item for _, item in compute.table.below(path)))


def set_tags(compute: Compute, request: GceRequest) -> Json:
    """Answer setTags: which firewall rules apply from now on."""
    path, machine = _find(compute, request)
    check_fingerprint(request.body.get("fingerprint"), machine["tags"]["fingerprint"], "tags")
    machine["tags"] = check_tags(request.body)
    return compute.begin(request, "setTags", path, Work(lambda: None)).document()


def set_metadata(compute: Compute, request: GceRequest) -> Json:
    """Answer setMetadata; a script in it runs at the next start."""
    path, machine = _find(compute, request)
    current = machine["metadata"]["fingerprint"]
    check_fingerprint(request.body.get("fingerprint"), current, "metadata")
    machine["metadata"] = check_metadata(request.body)
    return compute.begin(request, "setMetadata", path, Work(lambda: None)).document()


def serial_port(compute: Compute, request: GceRequest) -> Json:
    """Answer getSerialPortOutput: from a byte on, or the last so many bytes."""
    path, machine = _find(compute, request)
    port = int(request.fields.get("port", 1))
    if port not in SERIAL_PORTS:
        raise invalid("port", port, "Must be between 1 and 4.")
    if machine["status"] in gce_power.MAKING:
        raise not_ready(path)
    text = compute.hypervisor.console(machine[PRIVATE]["machine"]) if port == 1 else ""
    data = text.encode()
    start = int(request.fields.get("start", 0))
    kept = max(0, len(data) - SERIAL_BYTES)
    first = max(kept, start if start >= 0 else len(data) + start)
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": link(f"{path}/serialPort"),
        "contents": data[first:].decode(errors="replace"),
        "start": str(min(first, len(data))),
        "next": str(len(data)),
    }


def screenshot(compute: Compute, request: GceRequest) -> Json:
    """Answer getScreenshot: black, for these machines show nothing."""
    path, machine = _find(compute, request)
    if not machine.get("displayDevice", {}).get("enableDisplay"):
        text = "Screenshots need a display device: displayDevice.enableDisplay is not set."
        raise GceRefusal(400, "invalid", text)
    if machine["status"] != gce_power.ON:
        raise not_ready(path)
    return {"kind": "compute#screenshot", "contents": base64.b64encode(BLACK_JPEG).decode()}


def _collection(request: GceRequest) -> str:
    return f"projects/{request.project}/zones/{request.zone}/instances"


def _find(compute: Compute, request: GceRequest) -> tuple[str, Json]:
    path = f"{_collection(request)}/{request.fields['instance']}"
    return path, compute.table.require(path)
