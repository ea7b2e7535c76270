# References: Azure Compute REST, "Virtual Machines", "States and billing of virtual machines".
"""Short-lived machines: made once per name, watched, switched off, deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from imageport.cloud import Cancelled, never
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked, gone_already
from imageport.clouds.azure.names import (
    VIRTUAL_MACHINES,
    parse_id,
    resource_id,
    resource_name,
)
from imageport.clouds.azure.waiting import wait_for
from imageport.clouds.intents import Intent
from imageport.errors import CloudError, CloudRefused, CloudUnavailable, ResourceGone

STATE_SECONDS: Final = 900.0
"""How long Azure may take for a change of state; a deletion has been seen to take minutes."""
NETWORK_API_OF_MACHINES: Final = "2022-11-01"
"""With it a machine makes its own network interface, which goes with the machine."""
NO_CAPACITY: Final = (
    "AllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
    "SkuNotAvailable",
    "ZonalAllocationFailed",
)
VM: Final = "Microsoft.Compute/virtualMachines"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What kind of machine; every one has no identity and no public address."""

    size: str
    subnet_id: str
    security_group_id: str
    storage: dict[str, Any]
    """``storageProfile`` as Azure writes it."""
    system: dict[str, Any] | None = field(default=None, repr=False)
    """``osProfile``; a disk that is booted as it is has none. May hold signed URLs."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What Azure tells about a machine."""

    id: str
    provisioning: str
    """``creating``, ``updating``, ``succeeded``, ``failed``, ``deleting``."""
    power: str
    """``starting``, ``running``, ``stopping``, ``stopped`` (a shutdown from inside, still billed),
    ``deallocating``, ``deallocated`` (asked for from outside), or "" when there is none."""
    failure: str = ""
    """Azure's code and words when provisioning failed."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Tell whether no guest runs any more and none will."""
        return self.power in {"stopped", "deallocating", "deallocated"} or self.was_never_on

    @property
    def is_wreck(self) -> bool:
        """Tell a machine that can do nothing any more: never started, or being deleted."""
        return self.was_never_on or self.provisioning == "deleting"

    @property
    def was_never_on(self) -> bool:
        """Tell a machine that could not be made, and which nothing but deleting mends."""
        return self.provisioning == "failed" and not self.power


def describe_machine(account: AzureAccount, machine_id: str) -> MachineFacts | None:
    """Return the machine's facts, or None when there is no such machine (any more)."""
    machine = parse_id(machine_id, VIRTUAL_MACHINES)
    try:
        with asked(f"{VM}/read", machine_id):
            found = account.clients.compute.virtual_machines.get(
                machine.group, machine.name, expand="instanceView"
            )
    except ResourceGone:
        return None
    return _facts(machine_id, found.as_dict())


class MachineOfRun:
    """The one machine of a run for a purpose: taken up after a crash, made, removed.

    Args:
        account: Of the run.
        role: ``engine`` or ``boot``.
        facts: What the machine is for; the same facts find the same machine.
    """

    def __init__(self, account: AzureAccount, role: str, *facts: str) -> None:
        self._account = account
        self._role = role
        self._facts = facts
        self._intent = self._intend()
        self.id = ""
        """Id of the machine once there is one."""

    @property
    def expected_id(self) -> str:
        """Return the id that the machine has or would have: its name follows from the intent."""
        name = resource_name(self._intent)
        return resource_id(self._account.settings, VIRTUAL_MACHINES, name)

    def take_up(self) -> MachineFacts | None:
        """Look for the machine of an earlier, killed call; what is left of a broken one goes."""
        facts = describe_machine(self._account, self.expected_id)
        if facts is not None and not facts.is_wreck:
            self._account.record(self._intent, facts.id)
            self.id = facts.id
            return facts
        if facts is not None:
            delete_machine(self._account, facts.id)
        if facts is not None or self._intent.entry.resource_id:
            self._account.void(self._intent)
            self._intent = self._intend()
        return None

    def create(self, plan: MachinePlan, cancelled: Cancelled = never) -> None:
        """Make the machine, record it and wait until it was switched on.

        Raises:
            CloudRefused: it cannot be made, with what to do about it.
            CloudUnavailable: there is no capacity now, or it took too long.
        """
        account, machine = self._account, parse_id(self.expected_id)
        body: Any = _body(account, self._intent, plan)
        try:
            with asked(f"{VM}/write", self.expected_id):
                account.clients.compute.virtual_machines.begin_create_or_update(
                    machine.group, machine.name, body, polling=False
                )
        except CloudError as error:
            raise _explained(error, account, plan.size) from error
        self.id = self.expected_id
        account.record(self._intent, self.id)
        _wait_started(account, self.id, plan.size, cancelled)

    def remove(self) -> None:
        """Delete whatever there is of the machine; a request whose answer was lost made one too."""
        delete_machine(self._account, self.expected_id)
        self._account.void(self._intent)

    def _intend(self) -> Intent:
        return self._account.intend("instance", self._role, self._account.run, *self._facts)


def _wait_started(account: AzureAccount, machine_id: str, size: str, cancelled: Cancelled) -> None:
    """Wait until the machine was switched on, however it is by now."""

    def check() -> MachineFacts | None:
        facts = describe_machine(account, machine_id)
        if facts is None:
            raise ResourceGone(f"Bad machine '{machine_id}': found nothing, needed it running.")
        return facts if facts.power or facts.was_never_on else None

    facts = wait_for(machine_id, check, STATE_SECONDS, cancelled=cancelled, pulse=account.live)
    if facts.was_never_on:
        code = facts.failure.split(":", maxsplit=1)[0]
        passes = code in NO_CAPACITY or code.startswith(("Internal", "OperationPreempted"))
        kind = CloudUnavailable if passes else CloudRefused
        message = f"Cannot start '{parse_id(machine_id).name}': {facts.failure}"
        raise _explained(kind(message, azure_code=code), account, size)


def power_off(account: AzureAccount, machine_id: str) -> None:
    """Switch a machine off hard and wait; one that is off, or gone, is no error."""
    machine = parse_id(machine_id, VIRTUAL_MACHINES)
    with gone_already(), asked(f"{VM}/powerOff/action", machine_id):
        account.clients.compute.virtual_machines.begin_power_off(
            machine.group, machine.name, skip_shutdown=True, polling=False
        )

    def check() -> bool | None:
        facts = describe_machine(account, machine_id)
        return True if facts is None or facts.is_over else None

    wait_for(machine_id, check, STATE_SECONDS, pulse=account.live)


def delete_machine(account: AzureAccount, machine_id: str) -> None:
    """Delete a machine with its network interface and own disk, and wait; gone is no error."""
    machine = parse_id(machine_id, VIRTUAL_MACHINES)

    def ask() -> bool:
        with gone_already(), asked(f"{VM}/delete", machine_id):
            account.clients.compute.virtual_machines.begin_delete(
                machine.group, machine.name, polling=False
            )
        return True

    def check() -> bool | None:
        facts = describe_machine(account, machine_id)
        if facts is None:
            return True
        if facts.provisioning == "failed":
            ask()  # a deletion that failed half-way is mended by asking again
        return None

    wait_for(machine_id, ask, STATE_SECONDS, pulse=account.live)
    wait_for(machine_id, check, STATE_SECONDS, pulse=account.live)
    account.mark(machine_id, "deleted")


def _body(account: AzureAccount, intent: Intent, plan: MachinePlan) -> dict[str, Any]:
    settings = account.settings
    interface = {
        "name": f"{resource_name(intent)}-nic",
        "tags": intent.tags,
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "networkSecurityGroup": {"id": plan.security_group_id},
            "ipConfigurations": [
                {
                    "name": "address",
                    "properties": {"primary": True, "subnet": {"id": plan.subnet_id}},
                }
            ],
        },
    }
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": plan.size},
        "storageProfile": plan.storage,
        "networkProfile": {
            "networkApiVersion": NETWORK_API_OF_MACHINES,
            "networkInterfaceConfigurations": [interface],
        },
        # Managed storage: no account of the operator's is written to.
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    if plan.system is not None:
        properties["osProfile"] = plan.system
    body = {"location": settings.location, "tags": intent.tags, "properties": properties}
    return body | ({"zones": [settings.zone]} if settings.zone else {})


def _explained(error: CloudError, account: AzureAccount, size: str) -> CloudError:
    """Say which size could not be had where, and what to do; other errors stay as they are."""
    if error.fields.get("azure_code") in NO_CAPACITY:
        settings = account.settings
        where = settings.location + (f", zone {settings.zone}" if settings.zone else "")
        error.hint = (
            f"{size} is not to be had in {where}: name another VM size or zone in the Azure "
            "target, or ask for access to it."
        )
    return error


def _facts(machine_id: str, found: dict[str, Any]) -> MachineFacts:
    properties: dict[str, Any] = found.get("properties") or {}
    statuses: list[dict[str, Any]] = (properties.get("instanceView") or {}).get("statuses") or []
    power = failure = ""
    for status in statuses:
        code = str(status.get("code", ""))
        if code.lower().startswith("powerstate/"):
            power = code.split("/")[1].lower()
        elif code.lower().startswith("provisioningstate/failed"):
            named = code.split("/")[2:] or [str(status.get("displayStatus", "failed"))]
            failure = f"{named[0]}: {str(status.get('message', ''))[:300]}"
    return MachineFacts(
        id=machine_id,
        provisioning=str(properties.get("provisioningState", "")).lower(),
        power="" if power == "unknown" else power,
        failure=failure,
        tags=dict(found.get("tags") or {}),
    )
