"""A Google Cloud project on this machine for tests: the emulator, a bucket and a subnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from google.oauth2 import service_account

from imageport.cloud import CloudDisk
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.disks import attached_to, delete_disk
from imageport.clouds.gcp.images import delete_image
from imageport.clouds.gcp.instances import delete_machine
from imageport.clouds.gcp.job_folder import job_root
from imageport.clouds.gcp.names import ResourceId, parse_id
from imageport.clouds.gcp.network import delete_rule
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.sandbox.gcp.account import BOOT_SUBNET, BUCKET, PROJECT, REGION, SUBNET, ZONE
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.gcp.service import GcpService
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import SITE
from tests.clouds.machine_lab import MachineLab

CALM: dict[str, Any] = {
    name: getattr(Knobs(), name) for name in Knobs.__dataclass_fields__ if name != "seed"
} | {"state_seconds": 0.02}
"""Knobs between tests: as they are by themselves, but quick."""
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


class GcpConnections:
    """Clients of one emulator for all tests: making one costs more than a test does."""

    def __init__(self, service: GcpService) -> None:
        self.service = service
        self.credentials = service_account.Credentials.from_service_account_file(
            service.credentials_file, scopes=SCOPES
        )
        self.shared = GcpClients(self.settings(), self.credentials)

    def settings(self, **changes: Any) -> GcpSettings:
        known: dict[str, Any] = {
            "project": PROJECT,
            "region": REGION,
            "zone": ZONE,
            "bucket": BUCKET,
            "site": SITE,
            "subnet": SUBNET,
            "endpoint_url": self.service.endpoint,
        }
        return GcpSettings(**(known | changes))

    def close(self) -> None:
        self.shared.close()


class GcpLab(MachineLab):
    """The project; every test has its own state store."""

    troubles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "throttled": {"requests_per_second": 20.0},
        "failing": {"fault_rate": 0.25},
        "losing answers": {"lost_answers": 3},
    }
    calm: ClassVar[Mapping[str, object]] = CALM
    unwritten_reads_zero = True
    handle_is_reference = False
    name = "gcp"
    driver = "gvnic"
    reads_disks = False
    subnet_setting = "subnet"
    engine_needs = ("subnet",)
    boot_settings: ClassVar[Mapping[str, object]] = {
        "boot_subnet": BOOT_SUBNET, "nic_type": "VIRTIO_NET",
    }  # fmt: skip
    boot_kinds = frozenset({"instance", "snapshot", "disk", "security-group"})
    boot_ids = (".*/firewalls/", ".*/instances/")
    endings: ClassVar[Mapping[str, str]] = {
        "stop": "ended from outside: stop",
        "delete": "the machine is gone$",
    }
    engine_denied = "compute.instances.create"
    boot_denied = "compute.subnetworks.use"
    bad_day: ClassVar[Mapping[str, object]] = {"fault_rate": 0.1, "seed": 7}
    secrets = ("X-Goog-Signature", "Bearer ", "PRIVATE KEY", "run_job(")

    def __init__(self, connections: GcpConnections) -> None:
        super().__init__()
        self.service = connections.service
        self.connections = connections
        self.clients = connections.shared

    def settings(self, **changes: Any) -> GcpSettings:
        return self.connections.settings(**changes)

    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Any:
        return self.gcp_cloud(run, ledger=ledger, site=site)

    def cloud_with(self, run: str, *, ledger: Ledger | None = None, **changes: object) -> Any:
        return self.gcp_cloud(run, ledger=ledger, **changes)

    def gcp_cloud(self, run: str, *, ledger: Ledger | None = None, **changes: Any) -> Any:
        # Not at the top: the laboratory is of use without machines and network.
        from imageport.clouds.gcp.cloud import GcpCloud  # noqa: PLC0415

        made = GcpCloud(
            self.settings(**changes), self.connections.credentials, ledger or self.state.ledger, run
        )
        made._account.clients = self.clients
        return made

    def account(self, run: str, *, ledger: Ledger | None = None, **changes: Any) -> GcpAccount:
        settings = self.settings(**changes)
        return GcpAccount(settings, self.clients, ledger or self.state.ledger, run)

    def objects(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects below a prefix."""
        return [item.key for item in Objects(self.account("looking")).list(prefix)]

    def images(self) -> list[str]:
        """Return the ids of all of the project's own images."""
        return self._ids("images", "")

    def disks(self) -> list[str]:
        """Return the ids of all disks of the zone."""
        return self._ids("disks", ZONE)

    def machines(self) -> list[str]:
        """Return the ids of all machines of the zone."""
        return self._ids("instances", ZONE)

    def rules(self) -> list[str]:
        """Return the ids of all firewall rules."""
        return self._ids("firewalls", "")

    def everything(self) -> list[str]:
        """Return every resource that a run could have made, and every object."""
        return [
            *self.machines(), *self.disks(), *self.images(), *self.rules(), *self.objects(),
        ]  # fmt: skip

    def leftovers(self) -> list[str]:
        return [*self.machines(), *self.rules(), *self.objects(job_root(self.settings()))]

    def is_free(self, disk: CloudDisk) -> bool:
        return attached_to(self.account("look"), disk.id) == ()

    def end_machine(self, act: str) -> None:
        [machine] = self.machines()
        call = getattr(self.clients.instances, f"{act}_unary")
        call(project=PROJECT, zone=ZONE, instance=parse_id(machine, "instances").name)

    def saved(self, reason: str) -> bytes:
        key = reason.split(f"gs://{BUCKET}/", 1)[1]
        return Objects(self.account("look")).get(key)

    def empty(self) -> None:
        """Delete everything, so that tests do not see each other."""
        self.service.turn(**CALM)
        account = self.account("tidy")
        for machine in self.machines():
            delete_machine(account, machine)
        for disk in self.disks():
            delete_disk(account, disk)
        for image in self.images():
            delete_image(account, image)
        for rule in self.rules():
            delete_rule(account, rule)
        Objects(account).delete_many(self.objects())

    def turn(self, **knobs: object) -> None:
        self.service.turn(**knobs)

    def _ids(self, type_: str, zone: str) -> list[str]:
        client = getattr(self.clients, type_)
        where = {"project": PROJECT} | ({"zone": zone} if zone else {})
        made = [item.name for item in client.list(**where)]
        return [str(ResourceId(PROJECT, zone, type_, name)) for name in made if self._ours(name)]

    def _ours(self, name: str) -> bool:
        """The project has an engine image from the start, and what a test brings itself."""
        return name.startswith("imageport-") and name != "imageport-engine"
