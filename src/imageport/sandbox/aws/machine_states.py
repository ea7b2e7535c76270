# References: Amazon EC2 User Guide, "Instance lifecycle"; API reference, StateReason.
"""The states of a machine, and what the hypervisor does at each change."""

from __future__ import annotations

import base64
import copy
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, InstanceState, StateReason

from imageport.sandbox.aws.ec2_images import ENGINE_NAMES
from imageport.sandbox.aws.ec2_volumes import let_go
from imageport.sandbox.aws.emulator import ACCOUNT, current, device_name
from imageport.sandbox.machines.hypervisor import MachinePlan

CODES = {
    "pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64,
    "stopped": 80,
}  # fmt: skip
BY_GUEST = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
BY_USER = "Client.UserInitiatedShutdown: User initiated shutdown"
LOOK_SECONDS = 0.1
ANYWHERE = {"0.0.0.0/0", "::/0"}


def launch(instance: Instance) -> None:
    """Begin a machine that was just made: pending, then running when its disks are there."""
    _become(instance, "pending")
    _power_on_when_ready(instance)


def start(instance: Instance) -> InstanceState:
    """Start a stopped machine that has a root."""
    previous = copy.copy(instance.instance_state)
    with current().lock:
        if instance.state in {"running", "pending"}:
            return previous
        if instance.state != "stopped":
            raise _bad_state(instance, "started")
        if instance.root_device_name not in instance.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{instance.id}' for instanceId. Instance does not have a volume "
                f"attached at root ({instance.root_device_name})",
            )
        for nic in instance.nics.values():
            nic.start()
        _become(instance, "pending")
        _power_on_when_ready(instance)
    return previous


def stop(instance: Instance, reason: str = BY_USER) -> InstanceState:
    """Stop a running machine."""
    previous = copy.copy(instance.instance_state)
    emulator = current()
    with emulator.lock:
        if instance.state in {"stopped", "stopping"}:
            return previous
        if instance.state != "running":
            raise _bad_state(instance, "stopped")
        _become(instance, "stopping", reason)
        emulator.hypervisor.power_off(instance.id)

        def finish() -> None:
            if not emulator.hypervisor.is_off(instance.id):
                emulator.later(finish, LOOK_SECONDS)
            elif instance.state == "stopping":
                for nic in instance.nics.values():
                    nic.stop()
                _become(instance, "stopped", reason)

        emulator.later(finish)
    return previous


def terminate(instance: Instance, reason: str = BY_USER) -> InstanceState:
    """Terminate a machine in any state; its volumes are let go or deleted with it."""
    previous = copy.copy(instance.instance_state)
    emulator = current()
    with emulator.lock:
        if instance.state in {"shutting-down", "terminated"}:
            return previous
        _become(instance, "shutting-down", reason)
        emulator.hypervisor.power_off(instance.id)
        emulator.later(lambda: _end(instance, reason))
    return previous


def guest_shut_down(machine_id: str) -> None:
    """Do what a shutdown from inside means for this machine."""
    with current().lock:
        instance = find(machine_id)
        if instance is None or instance.state != "running":
            return
        if instance.instance_initiated_shutdown_behavior == "terminate":
            terminate(instance, BY_GUEST)
        else:
            stop(instance, BY_GUEST)


def find(machine_id: str) -> Instance | None:
    """Return a machine of any region."""
    for backend in ec2_backends[ACCOUNT].values():
        found: Instance | None = backend.get_instance_by_id(machine_id)
        if found is not None:
            return found
    return None


def network_problems(instance: Instance) -> list[str]:
    """Return why a guest on this machine could reach, or be reached by, more than it may.

    A destination that somebody named was asked for; the way to everywhere that AWS gives every new
    group was not.
    """
    problems = []
    if instance.public_ip_address:
        problems.append(f"public address {instance.public_ip_address}")
    for nic in instance.nics.values():
        for group in nic.group_set:
            if any(ANYWHERE & _cidrs(rule) or not _cidrs(rule) for rule in group.egress_rules):
                problems.append(f"group {group.id} lets traffic out to everywhere")
            if group.ingress_rules:
                problems.append(f"group {group.id} lets traffic in")
    return problems


def _cidrs(rule: Any) -> set[str]:
    """Return the destination of a rule; none means that it names a group or a prefix list."""
    return {str(cidr) for cidr in (rule.cidr_ipv4, rule.cidr_ipv6) if cidr}


def _become(instance: Instance, state: str, reason: str = "") -> None:
    instance.instance_state.name = state
    instance.instance_state.code = CODES[state]
    instance.state_reason = StateReason(reason, reason.partition(":")[0])
    # What StateTransitionReason shows.
    instance._reason = reason.partition(": ")[2]  # noqa: SLF001 - moto has no setter


def _power_on_when_ready(instance: Instance) -> None:
    emulator = current()

    def look() -> None:
        if instance.state != "pending":
            return
        volumes = [item.volume_id for item in instance.block_device_mapping.values()]
        if any(emulator.volume_states.get(item) == "creating" for item in volumes):
            emulator.later(look, LOOK_SECONDS)
            return
        _become(instance, "running")
        emulator.hypervisor.power_on(_plan(instance))

    emulator.later(look)


def _plan(instance: Instance) -> MachinePlan:
    emulator = current()
    volumes = {device: item.volume_id for device, item in instance.block_device_mapping.items()}
    root_id = volumes.get(instance.root_device_name, "")
    names = [image.name or "" for image in _images(instance)]
    script = ""
    if instance.user_data and any(name.startswith(ENGINE_NAMES) for name in names):
        script = base64.b64decode(str(instance.user_data)).decode(errors="replace")
    return MachinePlan(
        id=instance.id,
        script=script,
        root=emulator.volume_path(root_id) if root_id else None,
        devices={device_name(item): emulator.volume_path(item) for item in volumes.values()},
        problems=tuple(network_problems(instance)),
    )


def _images(instance: Instance) -> list[Any]:
    images = instance.ec2_backend.amis
    return [images[instance.image_id]] if instance.image_id in images else []


def _end(instance: Instance, reason: str) -> None:
    emulator = current()
    if not emulator.hypervisor.is_off(instance.id):
        emulator.later(lambda: _end(instance, reason), LOOK_SECONDS)
        return
    backend = instance.ec2_backend
    for mapping in list(instance.block_device_mapping.values()):
        volume = backend.volumes.get(mapping.volume_id)
        if volume is None:
            continue
        emulator.hypervisor.unplug(instance.id, device_name(volume.id))
        let_go(volume)
        if mapping.delete_on_termination:
            emulator.volume_states.pop(volume.id, None)
            backend.delete_volume(volume.id)
    for nic in list(instance.nics.values()):
        nic.stop()
        nic.delete()
    _become(instance, "terminated", reason)
    emulator.hypervisor.forget(instance.id)


def _bad_state(instance: Instance, verb: str) -> EC2ClientError:
    return EC2ClientError(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
    )
