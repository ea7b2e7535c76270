# References: Compute Engine REST v1, "instances"; "VM instance lifecycle"; "Limit the run time".
"""Short-lived machines: made once per name, watched, stopped, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from imageport.cloud import Cancelled, never
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.named_resources import delete, is_no_capacity, make
from imageport.clouds.gcp.names import (
    description_of,
    disk_type_path,
    labels_of,
    resource_name,
    tags_of,
    zonal_id,
)
from imageport.clouds.gcp.operations import finished
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.intents import Intent
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import CloudError, ResourceGone

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Instance, Operation

STATE_SECONDS: Final = 900.0
"""How long Google may take for a change of state; stopping alone gives a guest two minutes."""
WORK_DEVICE: Final = "imageport-work"
"""What the disk is called on its machine: ``/dev/disk/by-id/google-imageport-work``."""
SHORTEST_RUN_SECONDS: Final = 30
"""Least that Google takes for the longest run of a machine."""
SERIAL_PORT: Final = 1
FROM_OUTSIDE: Final = frozenset(
    {
        "stop",
        "suspend",
        "delete",
        "compute.instances.hostError",
        "compute.instances.preempted",
        "compute.instances.scheduledStop",
        "compute.instances.terminateOnHostMaintenance",
    }
)
"""Types of operations after which a first boot counts as broken off. A guest's own shutdown is
``compute.instances.guestTerminate``."""


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What kind of machine; every one has no identity and no external address."""

    machine_type: str
    subnet: str
    network_tags: tuple[str, ...]
    """Which firewall rules apply."""
    disks: Sequence[dict[str, Any]]
    """The first boots; see `image_disk` and `work_disk`."""
    max_run_seconds: float
    """After which Google ends the machine although nobody watches it any more; 0 is never. The
    limit stays with the machine, and counts anew each time that it is started."""
    startup_script: str = field(default="", repr=False)
    """Holds a signed URL."""
    nic_type: str = ""
    """Empty is what Google takes for the machine type and the image."""
    ends_deleted: bool = True
    """What the end of ``max_run_seconds`` means: deleted, or only stopped."""
    display: bool = False
    """A screen, of which a screenshot can be taken."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What Google tells about a machine."""

    id: str
    number: int
    """Google's own id, by which its operations are found."""
    status: str
    """``PROVISIONING``, ``STAGING``, ``RUNNING``, ``STOPPING``, ``TERMINATED`` …"""
    disks: dict[str, str] = field(default_factory=dict)
    """Id of each disk by its device name."""
    tags: dict[str, str] = field(default_factory=dict)
    """Ours, exactly."""

    @property
    def is_over(self) -> bool:
        """Tell whether no guest runs any more and none will."""
        return self.status == "TERMINATED"

    @property
    def is_ending(self) -> bool:
        """Tell a machine that is being stopped, or deleted, which looks the same."""
        return self.status in {"STOPPING", "PENDING_STOP", "DEPROVISIONING"}


def describe_machine(account: GcpAccount, machine_id: str) -> MachineFacts | None:
    """Return the machine's facts, or None when there is no such machine (any more)."""
    named = account.own(machine_id, "instances")
    instances = account.clients.instances

    def ask() -> Instance:
        with asked("compute.instances.get", machine_id):
            return instances.get(project=named.project, zone=named.zone, instance=named.name)

    try:
        found = retried(ask)
    except ResourceGone:
        return None
    return MachineFacts(
        id=str(named),
        number=found.id,
        status=found.status,
        disks={
            disk.device_name: disk.source[disk.source.find("projects/") :] for disk in found.disks
        },
        tags=tags_of(found.description, found.labels),
    )


def image_disk(settings: GcpSettings, image: str, tags: dict[str, str]) -> dict[str, Any]:
    """Return a system disk made from an image, which goes with its machine.

    Labels for the bill, but no exact tags: no resource of its own to the sweep.
    """
    disk: dict[str, Any] = {
        "boot": True,
        "auto_delete": True,
        "initialize_params": {
            "source_image": image,
            "disk_type": disk_type_path(settings),
            "labels": labels_of(settings, tags),
        },
    }
    if settings.kms_key:
        disk["disk_encryption_key"] = {"kms_key_name": settings.kms_key}
    return disk


def work_disk(disk_id: str, *, boot: bool = False, read_only: bool = False) -> dict[str, Any]:
    """Return a disk that exists and outlives its machine."""
    return {
        "source": disk_id,
        "boot": boot,
        "auto_delete": False,
        "device_name": WORK_DEVICE,
        "mode": "READ_ONLY" if read_only else "READ_WRITE",
    }


class MachineOfRun:
    """The one machine of a run for a purpose: taken up after a crash, made, removed.

    Args:
        account: Of the run.
        role: ``engine``, ``segments``, ``boot`` …
        facts: What the machine is for; the same facts find the same machine.
    """

    def __init__(self, account: GcpAccount, role: str, *facts: str) -> None:
        self._account = account
        self._role = role
        self._facts = facts
        self._intent = self._intend()
        self.id = ""
        """Id of the machine once there is one."""

    @property
    def expected_id(self) -> str:
        """Return the id that the machine has or would have: its name follows from the intent."""
        return zonal_id(self._account.settings, "instances", resource_name(self._intent))

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags of the machine and of what is made with it."""
        return self._intent.tags

    def take_up(self) -> MachineFacts | None:
        """Look for the machine of an earlier, killed call, which may have been deleting it."""
        facts = _settled(self._account, self.expected_id)
        if facts is not None:
            self._account.record(self._intent, facts.id)
            self.id = facts.id
        elif self._intent.entry.resource_id:
            self._account.void(self._intent)
            self._intent = self._intend()
        return facts

    def create(self, plan: MachinePlan, cancelled: Cancelled = never) -> None:
        """Make the machine, wait until it was switched on, and record it.

        Raises:
            CloudRefused: it cannot be made.
            CloudUnavailable: there is no capacity now, or it took too long.
        """
        account = self._account
        insert_machine(account, self.expected_id, self._intent, plan, cancelled)
        self.id = self.expected_id
        account.record(self._intent, self.id)
        wait_started(account, self.id, cancelled)

    def remove(self) -> None:
        """Delete whatever there is of the machine; a request whose answer was lost made one too."""
        delete_machine(self._account, self.expected_id)
        self._account.void(self._intent)

    def _intend(self) -> Intent:
        return self._account.intend("instance", self._role, self._account.run, *self._facts)


def insert_machine(
    account: GcpAccount,
    machine_id: str,
    intent: Intent,
    plan: MachinePlan,
    cancelled: Cancelled = never,
) -> None:
    """Make a machine and wait for the operation; again is harmless. Errors as `create`'s."""
    named = account.own(machine_id, "instances")
    request = {
        "project": named.project,
        "zone": named.zone,
        "instance_resource": _instance(account.settings, named.name, intent, plan),
    }
    try:
        make(
            account,
            "compute.instances.create",
            machine_id,
            lambda id_: account.clients.instances.insert_unary(request | {"request_id": id_}),
            deadline_seconds=STATE_SECONDS,
            cancelled=cancelled,
        )
    except CloudError as error:
        raise _explained(error, account.settings, plan.machine_type) from error


def _settled(account: GcpAccount, machine_id: str) -> MachineFacts | None:
    """Describe a machine; one that is ending is waited for, until it is off or gone."""

    def check() -> tuple[MachineFacts | None] | None:
        facts = describe_machine(account, machine_id)
        return None if facts is not None and facts.is_ending else (facts,)

    return wait_for(machine_id, check, STATE_SECONDS, pulse=account.live)[0]


def stop_machine(account: GcpAccount, machine_id: str) -> None:
    """Stop a machine and wait; one that is off, or gone, is no error."""
    named = account.own(machine_id, "instances")
    instances = account.clients.instances
    action = "compute.instances.stop"

    def once() -> bool:
        try:
            with asked(action, machine_id):
                operation = instances.stop_unary(
                    project=named.project, zone=named.zone, instance=named.name
                )
            finished(account, operation, action, machine_id, deadline_seconds=STATE_SECONDS)
        except ResourceGone:
            pass
        return True

    wait_for(machine_id, once, STATE_SECONDS, pulse=account.live)


def delete_machine(account: GcpAccount, machine_id: str) -> None:
    """Delete a machine with its own disk, and wait; gone is no error."""
    named = account.own(machine_id, "instances")
    instances = account.clients.instances
    delete(
        account,
        "compute.instances.delete",
        str(named),
        lambda: instances.delete_unary(project=named.project, zone=named.zone, instance=named.name),
        deadline_seconds=STATE_SECONDS,
    )


def console_text(account: GcpAccount, machine_id: str) -> str:
    """Return the newest of what the machine wrote to its serial port; a megabyte at most."""
    named = account.own(machine_id, "instances")
    with asked("compute.instances.getSerialPortOutput", machine_id):
        answer = account.clients.instances.get_serial_port_output(
            project=named.project, zone=named.zone, instance=named.name
        )
    return answer.contents


def who_ended(account: GcpAccount, facts: MachineFacts) -> str:
    """Return who ended a machine that is off, from outside; "" when its guest did.

    A guest's shutdown leaves no operation but Google's own note of it.
    """
    named = account.own(facts.id, "instances")

    def ask() -> list[Operation]:
        with asked("compute.zoneOperations.list", facts.id):
            found = account.clients.zone_operations.list(
                {
                    "project": named.project,
                    "zone": named.zone,
                    "filter": f"targetId = {facts.number}",
                }
            )
            return list(found)

    # Operations on it since it was made: it is started once, so any of these ended that run.
    ended = [item for item in retried(ask) if item.operation_type in FROM_OUTSIDE]
    if not ended:
        return ""
    by = f" by {ended[0].user}" if ended[0].user else ""
    return f"ended from outside: {ended[0].operation_type}{by}"


def wait_started(account: GcpAccount, machine_id: str, cancelled: Cancelled = never) -> None:
    """Wait until the machine was switched on, however it is by now."""

    def check() -> bool | None:
        facts = describe_machine(account, machine_id)
        if facts is None:
            raise ResourceGone(f"Bad machine '{machine_id}': found nothing, needed it running.")
        return None if facts.status in {"PENDING", "PROVISIONING", "STAGING"} else True

    wait_for(machine_id, check, STATE_SECONDS, cancelled=cancelled, pulse=account.live)


def _instance(
    settings: GcpSettings, name: str, intent: Intent, plan: MachinePlan
) -> dict[str, Any]:
    # No accessConfigs: no external address. By IPv4 alone, which is what the rules cover.
    interface = {"subnetwork": plan.subnet, "stack_type": "IPV4_ONLY"}
    if plan.nic_type:
        interface["nic_type"] = plan.nic_type
    # Keys of the project would let people in, and agents in a guest make accounts for them.
    metadata = {"block-project-ssh-keys": "TRUE"}
    if plan.startup_script:
        metadata["startup-script"] = plan.startup_script
    place = f"projects/{settings.project}/zones/{settings.zone}"
    return {
        "name": name,
        "description": description_of(intent.tags),
        "labels": labels_of(settings, intent.tags),
        "machine_type": f"{place}/machineTypes/{plan.machine_type}",
        "disks": list(plan.disks),
        "network_interfaces": [interface],
        "tags": {"items": list(plan.network_tags)},
        "metadata": {"items": [{"key": key, "value": metadata[key]} for key in metadata]},
        "scheduling": _scheduling(plan),
        "shielded_instance_config": {
            "enable_secure_boot": False,
            "enable_vtpm": False,
            "enable_integrity_monitoring": False,
        },
        "display_device": {"enable_display": plan.display},
    }


def _scheduling(plan: MachinePlan) -> dict[str, Any]:
    if not plan.max_run_seconds:
        return {"automatic_restart": False}
    return {
        "automatic_restart": False,
        "max_run_duration": {"seconds": max(SHORTEST_RUN_SECONDS, int(plan.max_run_seconds))},
        "instance_termination_action": "DELETE" if plan.ends_deleted else "STOP",
    }


def _explained(error: CloudError, settings: GcpSettings, machine_type: str) -> CloudError:
    """Say what could not be had where, and what to do; other errors stay as they are."""
    if is_no_capacity(error):
        error.hint = (
            f"{machine_type} is not to be had in {settings.zone}: name another machine type or "
            "zone in the Google Cloud target, or try later."
        )
    return error
