# References: Compute Engine, "VM instance lifecycle", "Stop and start", "Limit the run time of a
# VM"; REST v1 "instances": start, stop, reset, delete.
"""The power of machines, and what the hypervisor does at each change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from imageport.sandbox.gcp import gce_attachments
from imageport.sandbox.gcp.gce_compute import SYSTEM, Compute
from imageport.sandbox.gcp.gce_isolation import network_problems
from imageport.sandbox.gcp.gce_machine_checks import run_limit
from imageport.sandbox.gcp.gce_machine_types import find_type
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    OperationFailure,
    not_ready,
)
from imageport.sandbox.gcp.gce_names import name_of
from imageport.sandbox.gcp.gce_operations import NotYet, Operation, Work
from imageport.sandbox.gcp.gce_quotas import check_quota
from imageport.sandbox.gcp.gce_table import PRIVATE
from imageport.sandbox.machines.hypervisor import MachinePlan

GUEST_TERMINATE: Final = "compute.instances.guestTerminate"
SCHEDULED: Final = {
    "STOP": "compute.instances.scheduledStop", "DELETE": "compute.instances.scheduledDelete",
}  # fmt: skip
"""What Google notes when a machine's time is over."""
STARTUP_SCRIPT: Final = "startup-script"
ON: Final = "RUNNING"
OFF: Final = "TERMINATED"
MAKING: Final = ("PROVISIONING", "STAGING")


def next_step(machine: Json) -> int:
    """Note that a new change begins; an older one that is still going on does nothing more."""
    machine[PRIVATE]["step"] += 1
    return int(machine[PRIVATE]["step"])


def switch_on(compute: Compute, machine: Json) -> None:
    """Go on towards RUNNING: through STAGING, if there is room.

    Raises:
        NotYet: there is more to do.
        OperationFailure: no room in the zone, or in a quota.
    """
    if machine["status"] == "PROVISIONING":
        _check_room(compute, machine)
        machine["status"] = "STAGING"
        raise NotYet
    machine["status"] = ON
    compute.hypervisor.power_on(_plan(compute, machine))
    limit = run_limit(machine.get("scheduling", {}))
    if limit:
        step = machine[PRIVATE]["step"]
        timer = threading.Timer(limit, lambda: _time_is_over(compute, machine, step))
        timer.daemon = True
        timer.start()


def start(compute: Compute, request: GceRequest) -> Json:
    """Answer start; a machine that runs already is no error."""
    path, machine = _find(compute, request)
    if machine["status"] == ON:
        return compute.begin(request, "start", path, Work(lambda: None)).document()
    if machine["status"] != OFF:
        raise not_ready(path)
    if gce_attachments.boot_disk(compute, machine) is None:
        raise GceRefusal(400, "invalid", f"The instance '{path}' has no boot disk.")
    next_step(machine)
    machine["status"] = "PROVISIONING"

    def failed() -> None:
        machine["status"] = OFF

    work = Work(lambda: switch_on(compute, machine), failed)
    return compute.begin(request, "start", path, work).document()


def stop(compute: Compute, request: GceRequest) -> Json:
    """Answer stop; a machine that is off is no error."""
    path, machine = _find(compute, request)
    if machine["status"] in MAKING:
        raise not_ready(path)
    if machine["status"] == ON:
        _go_off(compute, machine)
    step = machine[PRIVATE]["step"]

    def failed() -> None:
        if machine[PRIVATE]["step"] == step:
            machine["status"] = OFF  # its guest is gone all the same

    work = Work(lambda: _off(compute, machine, step), failed)
    return compute.begin(request, "stop", path, work).document()


def reset(compute: Compute, request: GceRequest) -> Json:
    """Answer reset: off and on again at once, the disks as they are."""
    path, machine = _find(compute, request)
    if machine["status"] != ON:
        raise not_ready(path)
    step = next_step(machine)
    compute.hypervisor.power_off(machine[PRIVATE]["machine"])

    def finish() -> None:
        if machine[PRIVATE]["step"] != step:
            return
        if not compute.hypervisor.is_off(machine[PRIVATE]["machine"]):
            raise NotYet
        compute.hypervisor.power_on(_plan(compute, machine))

    return compute.begin(request, "reset", path, Work(finish)).document()


def delete(compute: Compute, request: GceRequest) -> Json:
    """Answer DELETE of a machine; its disks go or stay as they were attached."""
    path, machine = _find(compute, request)
    if machine["status"] in MAKING:
        raise not_ready(path)
    finish = _delete(compute, path, machine)
    step = machine[PRIVATE]["step"]

    def failed() -> None:
        if machine[PRIVATE]["step"] == step:
            machine["status"] = OFF  # it was switched off, and is there

    return compute.begin(request, "delete", path, Work(finish, failed)).document()


def guest_shut_down(compute: Compute, machine_id: str) -> None:
    """Do what a shutdown from inside means: TERMINATED, and Google's own note of it."""
    with compute.lock:
        machine = _of_hypervisor(compute, machine_id)
        if machine is None or machine["status"] != ON:
            return
        _go_off(compute, machine)
        step = machine[PRIVATE]["step"]
        operation = _of_system(machine[PRIVATE]["path"], GUEST_TERMINATE, machine)
        work = Work(lambda: _off(compute, machine, step))
        compute.operations.run(operation, compute.knobs.state_seconds, work)


def _delete(compute: Compute, path: str, machine: Json) -> Callable[[], None]:
    """Switch a machine off and return what removes it when it is."""
    _go_off(compute, machine)
    step = machine[PRIVATE]["step"]
    machine_id = machine[PRIVATE]["machine"]

    def finish() -> None:
        if compute.table.get(path) is not machine:
            return  # an earlier deletion was done before
        if not compute.hypervisor.is_off(machine_id):
            raise NotYet
        machine[PRIVATE]["step"] = step + 1
        gce_attachments.release_all(compute, path, machine)
        compute.table.drop(path)
        compute.hypervisor.forget(machine_id)

    return finish


def _go_off(compute: Compute, machine: Json) -> None:
    next_step(machine)
    machine["status"] = "STOPPING"
    compute.hypervisor.power_off(machine[PRIVATE]["machine"])


def _off(compute: Compute, machine: Json, step: int) -> None:
    """End a change to TERMINATED, unless another one came after it."""
    if machine[PRIVATE]["step"] != step:
        return
    if not compute.hypervisor.is_off(machine[PRIVATE]["machine"]):
        raise NotYet
    machine["status"] = OFF


def _time_is_over(compute: Compute, machine: Json, step: int) -> None:
    """End a machine whose run time was limited."""
    with compute.lock:
        if machine[PRIVATE]["step"] != step or machine["status"] != ON:
            return
        action = machine["scheduling"].get("instanceTerminationAction", "STOP")
        path = machine[PRIVATE]["path"]
        operation = _of_system(path, SCHEDULED[action], machine)
        if action == "DELETE":
            work = Work(_delete(compute, path, machine))
        else:
            _go_off(compute, machine)
            now = machine[PRIVATE]["step"]
            work = Work(lambda: _off(compute, machine, now))
        compute.operations.run(operation, compute.knobs.state_seconds, work)


def _of_system(path: str, kind: str, machine: Json) -> Operation:
    place = "/".join(path.split("/")[:-2])
    return Operation(place, kind, path, str(machine["id"]), SYSTEM)


def _check_room(compute: Compute, machine: Json) -> None:
    name = name_of(machine["machineType"])
    if name in compute.knobs.missing_machine_types:
        zone = machine[PRIVATE]["path"].split("/")[3]
        text = (
            f"The zone 'projects/{machine[PRIVATE]['path'].split('/')[1]}/zones/{zone}' does not "
            "have enough resources available to fulfill the request.  Try a different zone, or try "
            "again later."
        )
        raise OperationFailure(503, "ZONE_RESOURCE_POOL_EXHAUSTED", text)
    kind = find_type(name)
    try:
        for metric in (*(kind.quotas if kind else ()), "INSTANCES", "CPUS_ALL_REGIONS"):
            check_quota(compute, metric, 0)
    except GceRefusal as refusal:
        raise OperationFailure(403, "QUOTA_EXCEEDED", refusal.message) from refusal


def _plan(compute: Compute, machine: Json) -> MachinePlan:
    disk = gce_attachments.boot_disk(compute, machine)
    kind = find_type(name_of(machine["machineType"]))
    features = [item["type"] for item in (disk or {}).get("guestOsFeatures", [])]
    items = machine.get("metadata", {}).get("items", [])
    script = next((item["value"] for item in items if item["key"] == STARTUP_SCRIPT), "")
    rules = [rule for _, rule in compute.table.of_type("firewalls")]
    return MachinePlan(
        id=machine[PRIVATE]["machine"],
        # Windows runs scripts of other keys alone.
        script="" if "WINDOWS" in features else script,
        root=None if disk is None else compute.file(disk),
        devices=gce_attachments.devices(compute, machine),
        platform=kind.platform if kind else "",
        problems=tuple(network_problems(machine, rules)),
    )


def _find(compute: Compute, request: GceRequest) -> tuple[str, Json]:
    name = request.fields["instance"]
    path = f"projects/{request.project}/zones/{request.zone}/instances/{name}"
    return path, compute.table.require(path)


def _of_hypervisor(compute: Compute, machine_id: str) -> Json | None:
    return next(
        (
            machine
            for _, machine in compute.table.of_type("instances")
            if machine[PRIVATE]["machine"] == machine_id
        ),
        None,
    )
