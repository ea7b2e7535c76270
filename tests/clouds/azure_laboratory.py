"""An Azure subscription on this machine for tests: the emulator, a job container and a subnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from imageport.cloud import CloudDisk
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.arm_http import NETWORK_API
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.credentials import laboratory_credential
from imageport.clouds.azure.disks import WITH_ACCESS, attached_to, delete_disk, describe_disk
from imageport.clouds.azure.names import DISKS, SNAPSHOTS, resource_id
from imageport.clouds.azure.names import NETWORK_SECURITY_GROUPS as GROUPS
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.azure.snapshots import delete_snapshot, describe_snapshot
from imageport.sandbox.azure.account import (
    BOOT_SUBNET_ID,
    LOCATION,
    RESOURCE_GROUP,
    SUBNET_ID,
    SUBSCRIPTION,
    job_container_url,
)
from imageport.sandbox.azure.service import AzureService
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import SITE
from tests.clouds.machine_lab import MachineLab

CALM: dict[str, Any] = {
    "state_seconds": 0.02,
    "fault_rate": 0.0,
    "control_rps": 0.0,
    "mib_per_second": 0.0,
    "denied": [],
    "sas_seconds": 0.0,
    "clock_skew_seconds": 0.0,
    "missing_sizes": [],
    "checksum_refused": False,
    "firmware_seconds": 600.0,
    "boot_command": [],
    "quota_vcpus": 100,
    "operation_timed_out_rate": 0.0,
    "stuck_upload": 0,
    "lost_answers": 0,
    "failed_operations": 0,
}
"""Knobs between tests."""


class AzureConnections:
    """Clients of one emulator for all tests: making one costs more than a test does."""

    def __init__(self, service: AzureService) -> None:
        self.service = service
        self.credential = laboratory_credential(service.endpoint)
        self.shared = AzureClients(self.settings(), self.credential)

    def settings(self, **changes: Any) -> AzureSettings:
        known: dict[str, Any] = {
            "subscription_id": SUBSCRIPTION,
            "resource_group": RESOURCE_GROUP,
            "location": LOCATION,
            "site": SITE,
            "subnet_id": SUBNET_ID,
            "job_container_url": job_container_url(self.service.endpoint),
            "endpoint_url": self.service.endpoint,
        }
        return AzureSettings(**(known | changes))

    def close(self) -> None:
        self.shared.close()


class AzureLab(MachineLab):
    """The subscription; every test has its own state store."""

    troubles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "throttled": {"control_rps": 8.0, "mib_per_second": 2.0},
        "failing": {"fault_rate": 0.25, "operation_timed_out_rate": 0.1},
        "losing answers": {"lost_answers": 3},
    }
    calm: ClassVar[Mapping[str, object]] = CALM
    name = "azure"
    driver = "mana"
    engine_needs = ("job_container_url", "subnet_id")
    boot_settings: ClassVar[Mapping[str, object]] = {"boot_subnet_id": BOOT_SUBNET_ID}
    boot_kinds = frozenset({"instance", "snapshot", "disk", "security-group"})
    boot_ids = (".*/networkSecurityGroups/", ".*/virtualMachines/")
    endings: ClassVar[Mapping[str, str]] = {
        "stop": ".* from outside",
        "delete": "the machine is gone$",
    }
    engine_denied = "Microsoft.Compute/virtualMachines/write"
    boot_denied = "Microsoft.Network/networkSecurityGroups/join/action"
    bad_day: ClassVar[Mapping[str, object]] = {"fault_rate": 0.1, "control_rps": 20}
    secrets = ("sig=", "skoid=", "Bearer ", "PRIVATE KEY")

    def __init__(self, connections: AzureConnections) -> None:
        super().__init__()
        self.service = connections.service
        self.connections = connections
        self.clients = connections.shared

    def settings(self, **changes: Any) -> AzureSettings:
        return self.connections.settings(**changes)

    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Any:
        return self.azure_cloud(run, ledger=ledger, site=site)

    def cloud_with(self, run: str, *, ledger: Ledger | None = None, **changes: object) -> Any:
        return self.azure_cloud(run, ledger=ledger, **changes)

    def azure_cloud(self, run: str, *, ledger: Ledger | None = None, **changes: Any) -> Any:
        # Not at the top: the laboratory is of use without machines and network.
        from imageport.clouds.azure.cloud import AzureCloud  # noqa: PLC0415

        made = AzureCloud(
            self.settings(**changes), self.connections.credential, ledger or self.state.ledger, run
        )
        made._account.clients = self.clients
        return made

    def account(self, run: str, *, ledger: Ledger | None = None, **changes: Any) -> AzureAccount:
        settings = self.settings(**changes)
        return AzureAccount(settings, self.clients, ledger or self.state.ledger, run)

    def disks(self) -> list[str]:
        """Return the ids of all disks, as the product writes them."""
        listed = self.clients.compute.disks.list_by_resource_group(RESOURCE_GROUP)
        return [resource_id(self.settings(), DISKS, str(item.name)) for item in listed]

    def snapshots(self) -> list[str]:
        """Return the ids of all snapshots, as the product writes them."""
        listed = self.clients.compute.snapshots.list_by_resource_group(RESOURCE_GROUP)
        return [resource_id(self.settings(), SNAPSHOTS, str(item.name)) for item in listed]

    def open_access(self) -> list[str]:
        """Return the ids of disks and snapshots that a signed URL opens at this moment."""
        account = self.account("looking")
        facts = [describe_disk(account, found) for found in self.disks()]
        facts_of_snapshots = [describe_snapshot(account, found) for found in self.snapshots()]
        known = [item for item in (*facts, *facts_of_snapshots) if item is not None]
        return [item.id for item in known if item.state in WITH_ACCESS]

    def everything(self) -> list[str]:
        """Return every resource that a run could have made, and every blob."""
        return [*self.disks(), *self.snapshots(), *self.leftovers()]

    def leftovers(self) -> list[str]:
        machines = self.clients.compute.virtual_machines.list(RESOURCE_GROUP)
        found = [*self.open_access(), *(str(item.name) for item in machines)]
        found += [*self._groups(), *self._network("Microsoft.Network/networkInterfaces")]
        blobs = self.clients.blob_service.get_container_client(self.clients.job_container)
        return found + [item.name for item in blobs.list_blobs()]

    def is_free(self, disk: CloudDisk) -> bool:
        return attached_to(self.account("look"), disk.id) == ""

    def end_machine(self, act: str) -> None:
        machines = self.clients.compute.virtual_machines
        [machine] = [str(item.name) for item in machines.list(RESOURCE_GROUP)]
        if act == "stop":
            machines.begin_deallocate(RESOURCE_GROUP, machine).wait()
        else:
            machines.begin_delete(RESOURCE_GROUP, machine).wait()

    def saved(self, reason: str) -> bytes:
        name = reason.split(f"{self.settings().job_container_url}/", 1)[1]
        container = self.clients.job_container
        blob = self.clients.blob_service.get_blob_client(container, name)
        data: bytes = blob.download_blob().readall()
        return data

    def turn(self, **knobs: object) -> None:
        self.service.turn(**knobs)

    def empty(self) -> None:
        """Delete everything, so that tests do not see each other."""
        self.service.turn(**CALM)
        if self.service.machines() or self._groups():
            self._empty_through_the_cloud()
        for group_id in self._groups():
            self.clients.arm.delete(group_id, NETWORK_API, f"{GROUPS}/delete")
        account = self.account("tidy")
        for disk_id in self.disks():
            delete_disk(account, disk_id)
        for snapshot_id in self.snapshots():
            delete_snapshot(account, snapshot_id)

    def _groups(self) -> list[str]:
        return self._network(GROUPS)

    def _network(self, kind: str) -> list[str]:
        path = f"{self.settings().group_id}/providers/{kind}"
        listed = self.clients.arm.pages(path, NETWORK_API, f"{kind}/read")
        return [resource_id(self.settings(), kind, item["name"]) for item in listed]

    def _empty_through_the_cloud(self) -> None:
        for site in (SITE, "paris"):
            cloud = self.azure_cloud("tidy", site=site)
            for resource in cloud.list_ours(site):
                cloud.delete_resource(resource)
