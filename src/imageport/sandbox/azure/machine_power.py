# References: "States and billing status of Azure Virtual Machines"; Azure REST API, Virtual
# Machines - Start, Power Off, Deallocate, Delete.
"""The power of a machine, and what the hypervisor does at each change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from imageport.sandbox.azure import machine_disks
from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, not_allowed, not_found
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.isolation import network_problems
from imageport.sandbox.azure.machine_disks import OS_LUN
from imageport.sandbox.azure.network_groups import TYPE as GROUPS
from imageport.sandbox.azure.operations import NotYet
from imageport.sandbox.machines.hypervisor import MachinePlan

Json = dict[str, Any]
MACHINES = "Microsoft.Compute/virtualMachines"
MACHINE_OPERATIONS = "Microsoft.Compute/operations"
ON = {"starting", "running"}
UNKNOWN_FAILURE = ("InternalExecutionError", "An internal execution error occurred.")


def next_step(machine: Json) -> int:
    """Note that a new operation begins; an older one that is still going on is preempted."""
    machine["imageport"]["step"] += 1
    return int(machine["imageport"]["step"])


def check_step(machine: Json, step: int) -> None:
    """End an operation that a newer one has overtaken."""
    if machine["imageport"]["step"] != step:
        text = "Operation execution has been preempted by a more recent operation."
        raise ArmError(409, "OperationPreempted", text)


def refuse_deleting(machine: Json, verb: str) -> None:
    """Refuse everything on a machine that is being deleted."""
    if machine["properties"]["provisioningState"] == "Deleting":
        text = (
            f"Operation '{verb}' is not allowed on VM '{machine['name']}' since the VM is marked "
            "for deletion. You can only retry the Delete operation (or wait for an ongoing one to "
            "complete)."
        )
        raise not_allowed(text)


def switch_on(emulator: Emulator, machine: Json) -> None:
    """Make a machine run."""
    machine["imageport"]["power"] = "running"
    emulator.hypervisor.power_on(_plan(emulator, machine))


def start(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer start; a machine that runs already is no error."""
    machine = _find(emulator, request, "start")
    if machine["imageport"]["power"] in ON:
        return _answer(emulator, lambda: None)
    if machine["imageport"]["power"] in {"stopping", "deallocating"}:
        # The guest's processes may still be ending: starting waits for that.
        waiting = machine["imageport"]["machine"]
    else:
        waiting = ""
    step = next_step(machine)
    machine["imageport"]["power"] = "starting"

    def finish() -> None:
        check_step(machine, step)
        if waiting and not emulator.hypervisor.is_off(waiting):
            raise NotYet
        switch_on(emulator, machine)

    return _answer(emulator, finish)


def power_off(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer powerOff: stopped, and still allocated."""
    machine = _find(emulator, request, "powerOff")
    skip = request.query.get("skipShutdown", "false")
    if skip.lower() not in {"true", "false"}:
        raise bad_parameter("skipShutdown", f"The value '{skip}' of 'skipShutdown' is not valid.")
    if machine["imageport"]["power"] not in ON:
        return _answer(emulator, lambda: None)
    return _go_off(emulator, machine, "stopping", "stopped")


def deallocate(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer deallocate: off, and the hardware given back."""
    machine = _find(emulator, request, "deallocate")
    if machine["imageport"]["power"] == "deallocated":
        return _answer(emulator, lambda: None)
    return _go_off(emulator, machine, "deallocating", "deallocated")


def _go_off(emulator: Emulator, machine: Json, going: str, gone: str) -> ArmAnswer:
    step = next_step(machine)
    machine["imageport"]["power"] = going
    machine_id = machine["imageport"]["machine"]
    emulator.hypervisor.power_off(machine_id)

    def finish() -> None:
        check_step(machine, step)
        if not emulator.hypervisor.is_off(machine_id):
            raise NotYet
        machine["imageport"]["power"] = gone
        if machine["properties"]["provisioningState"] == "Creating":
            machine["properties"]["provisioningState"] = "Succeeded"

    return _answer(emulator, finish)


def delete(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer DELETE of a machine in any state; its disks and interfaces go or stay as asked."""
    machine = emulator.resources.get(request.key)
    if machine is None:
        return ArmAnswer(204)
    _check_deletions(emulator, request, machine)
    step = next_step(machine)
    machine["properties"]["provisioningState"] = "Deleting"
    machine_id = machine["imageport"]["machine"]
    emulator.hypervisor.power_off(machine_id)

    def finish() -> None:
        check_step(machine, step)
        if not emulator.hypervisor.is_off(machine_id):
            raise NotYet
        _remove(emulator, machine)

    def failed() -> None:
        if machine["imageport"]["step"] == step:
            machine["properties"]["provisioningState"] = "Failed"

    operation = emulator.begin(MACHINE_OPERATIONS, finish, failed)
    return ArmAnswer(202, None, operation, final_state="location")


def _check_deletions(emulator: Emulator, request: ArmRequest, machine: Json) -> None:
    """Refuse when what would be deleted with the machine must not be."""
    storage = machine["properties"]["storageProfile"]
    for entry in (storage["osDisk"], *storage["dataDisks"]):
        if entry["deleteOption"] == "Delete":
            disk_id = str(entry["managedDisk"]["id"])
            emulator.check_linked(request, "Microsoft.Compute/disks/delete", disk_id)
    for nic in machine["properties"]["networkProfile"]["networkInterfaces"]:
        if nic["properties"]["deleteOption"] == "Delete":
            action = "Microsoft.Network/networkInterfaces/delete"
            emulator.check_linked(request, action, str(nic["id"]))


def _remove(emulator: Emulator, machine: Json) -> None:
    storage = machine["properties"]["storageProfile"]
    entries = [storage["osDisk"], *storage["dataDisks"]]
    emulator.resources.drop(str(machine["id"]))
    for key in machine["imageport"]["disks"]:
        machine_disks.release(emulator, key)
    for entry in entries:
        key = str(entry["managedDisk"]["id"]).lower()
        if entry["deleteOption"] == "Delete" and emulator.resources.get(key) is not None:
            emulator.store.delete(key)
            emulator.resources.drop(key)
    for nic in machine["properties"]["networkProfile"]["networkInterfaces"]:
        if nic["properties"]["deleteOption"] == "Delete":
            emulator.resources.drop(nic["id"])
            continue
        document = emulator.resources.get(nic["id"])
        if document is not None:
            document["properties"].pop("virtualMachine", None)
    emulator.hypervisor.forget(machine["imageport"]["machine"])


def guest_shut_down(emulator: Emulator, machine_id: str) -> None:
    """Do what a shutdown from inside means: stopped, and still allocated and billed."""
    with emulator.lock:
        machine = next(
            (
                item
                for item in emulator.resources.of_type(MACHINES)
                if item["imageport"]["machine"] == machine_id
            ),
            None,
        )
        if machine is None or machine["imageport"]["power"] != "running":
            return
        step = machine["imageport"]["step"]
        emulator.hypervisor.power_off(machine_id)

        def finish() -> None:
            if machine["imageport"]["step"] != step:
                return
            if not emulator.hypervisor.is_off(machine_id):
                raise NotYet
            machine["imageport"]["power"] = "stopped"

        emulator.operations.begin(
            MACHINE_OPERATIONS, emulator.knobs.state_seconds, finish, lambda: None
        )


def view(machine: Json) -> Json:
    """Return the instance view."""
    state = machine["properties"]["provisioningState"].lower()
    power = machine["imageport"]["power"]
    disks = [machine["properties"]["storageProfile"]["osDisk"]]
    disks += machine["properties"]["storageProfile"]["dataDisks"]
    first = _status(f"ProvisioningState/{state}", state)
    if state == "failed":
        code, text = machine["imageport"].get("failure", UNKNOWN_FAILURE)
        first |= {"code": f"{first['code']}/{code}", "level": "Error", "message": text}
    found: Json = {
        "hyperVGeneration": machine["imageport"]["generation"],
        "statuses": [first],
        "disks": [
            {
                "name": disk["name"],
                "statuses": [_status("ProvisioningState/succeeded", "succeeded")],
            }
            for disk in disks
        ],
        "bootDiagnostics": {},
    }
    if state == "creating" and machine["properties"].get("osProfile"):
        found["statuses"].append(
            _status("ProvisioningState/creating/OSProvisioningInProgress", "OS provisioning")
        )
    if power and (state != "creating" or power != "starting"):
        found["statuses"].append(_status(f"PowerState/{power}", f"VM {power}"))
    return found


def _status(code: str, text: str) -> Json:
    return {
        "code": code,
        "level": "Info",
        "displayStatus": text,
        "time": datetime.now(UTC).isoformat(),
    }


def _plan(emulator: Emulator, machine: Json) -> MachinePlan:
    facts = machine["imageport"]
    root = next(key for key, lun in facts["disks"].items() if lun == OS_LUN)
    nics = [emulator.resources.get(key) for key in facts["nics"]]
    groups = {str(item["id"]).lower(): item for item in emulator.resources.of_type(GROUPS)}
    return MachinePlan(
        id=facts["machine"],
        script=facts["script"],
        root=emulator.store.path(root),
        devices=machine_disks.devices(emulator, machine),
        platform="azure-nvme" if facts["controller"] == "NVMe" else "azure",
        problems=tuple(network_problems([nic for nic in nics if nic is not None], groups)),
    )


def _find(emulator: Emulator, request: ArmRequest, verb: str) -> Json:
    machine = emulator.resources.get(request.key)
    if machine is None:
        raise not_found(request.scope)
    refuse_deleting(machine, verb)
    return machine


def _answer(emulator: Emulator, finish: Any) -> ArmAnswer:
    operation = emulator.begin(MACHINE_OPERATIONS, finish)
    return ArmAnswer(202, None, operation, final_state="location")
