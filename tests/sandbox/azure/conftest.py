"""One emulated subscription for all tests of this folder, and the few steps they repeat."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.storage.blob import BlobClient

from imageport.sandbox.azure.account import (
    GROUP_ID,
    LOCATION,
    RESOURCE_GROUP,
    SUBNET_ID,
    SUBSCRIPTION,
    TOKEN,
)
from imageport.sandbox.azure.disk_footer import export_footer
from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.azure.service import AzureService

MIB = 1 << 20
DISK_MIB = 64
NETWORK_API = "2024-05-01"
DEBIAN = {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"}
DENIED_TAGS = ("AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM")


class Bearer(SansIOHTTPPolicy[Any, Any]):
    """The SDK's own policy refuses http."""

    def on_request(self, request: Any) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {TOKEN}"


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(TOKEN, int(time.time()) + 3600)


def rule(name: str, priority: int, direction: str, access: str, **where: Any) -> dict[str, Any]:
    everything: dict[str, Any] = {
        "protocol": "*",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "*",
    }
    facts = {"priority": priority, "direction": direction, "access": access}
    return {"name": name, "properties": everything | facts | where}


def isolated_rules() -> list[dict[str, Any]]:
    rules = [
        rule(f"no-{tag}", 100 + number, "Outbound", "Deny", destinationAddressPrefix=tag)
        for number, tag in enumerate(DENIED_TAGS)
    ]
    rules.append(rule("out", 4096, "Outbound", "Deny"))
    return [*rules, rule("in", 4096, "Inbound", "Deny")]


@dataclass
class Subscription:
    service: AzureService
    compute: ComputeManagementClient
    usual_group: str = ""
    """A group that isolates, for machines whose group does not matter."""

    @property
    def disks_folder(self) -> Path:
        return self.service._root / "disks"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str = NETWORK_API,
        token: str = TOKEN,
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, document and headers of a raw request; ``path`` may be a whole URL."""
        url = path if path.startswith("http") else f"{self.service.endpoint}{path}"
        if version:
            url += ("&" if "?" in url else "?") + f"api-version={version}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - loopback
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                content, status, headers = answer.read(), answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                content, status, headers = error.read(), error.code, dict(error.headers)
        return status, json.loads(content) if content else None, headers

    def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not so after {seconds} s"
            time.sleep(0.02)

    def disk_body(self, **properties: Any) -> dict[str, Any]:
        creation = {"createOption": "Upload", "uploadSizeBytes": DISK_MIB * MIB + 512}
        facts = {"osType": "Windows", "hyperVGeneration": "V2", "creationData": creation}
        return {
            "location": LOCATION,
            "sku": {"name": "Standard_LRS"},
            "tags": {"imageport:site": "lab"},
            "properties": facts | properties,
        }

    def make_disk(self, name: str = "", body: dict[str, Any] | None = None) -> str:
        """Return the name of a disk; by default one that waits for its upload."""
        name = name or f"disk-{uuid.uuid4().hex[:12]}"
        self.compute.disks.begin_create_or_update(
            RESOURCE_GROUP, name, body or self.disk_body()
        ).result()
        return name

    def grant(self, name: str, access: str = "Write", seconds: int = 3600) -> str:
        wanted = {"access": access, "durationInSeconds": seconds}
        return str(
            self.compute.disks.begin_grant_access(RESOURCE_GROUP, name, wanted).result().access_sas
        )

    def revoke(self, name: str) -> None:
        self.compute.disks.begin_revoke_access(RESOURCE_GROUP, name).result()

    def upload(self, url: str, pages: dict[int, bytes]) -> None:
        """Put pages at offsets, and the footer."""
        blob = BlobClient.from_blob_url(url)
        with blob:
            size = DISK_MIB * MIB
            blob.upload_page(export_footer(size, "test"), offset=size, length=512)
            for offset, data in pages.items():
                blob.upload_page(data, offset=offset, length=len(data))

    def disk(self, pages: dict[int, bytes] | None = None, **properties: Any) -> str:
        """Return the name of an uploaded disk that nobody holds."""
        name = self.make_disk(body=self.disk_body(**properties))
        self.upload(self.grant(name), pages or {})
        self.revoke(name)
        return name

    def system_disk(self, **properties: Any) -> str:
        """Return the name of a disk of zeros that says it holds a system: quickly made."""
        creation = {"createOption": "Empty"}
        facts = {"osType": "Windows", "hyperVGeneration": "V2", "diskSizeGB": 1}
        everything = facts | {"creationData": creation} | properties
        return self.make_disk(body={"location": LOCATION, "properties": everything})

    def state(self, name: str) -> str:
        return str(
            self.compute.disks.get(RESOURCE_GROUP, name).as_dict()["properties"]["diskState"]
        )

    def disk_id(self, name: str) -> str:
        return f"{GROUP_ID}/providers/Microsoft.Compute/disks/{name}"

    def snapshot_id(self, name: str) -> str:
        return f"{GROUP_ID}/providers/Microsoft.Compute/snapshots/{name}"

    def snapshot_body(self, source: str, **properties: Any) -> dict[str, Any]:
        creation = {"createOption": "Copy", "sourceResourceId": source}
        facts = {"creationData": creation, "incremental": True}
        return {"location": LOCATION, "tags": {}, "properties": facts | properties}

    def snapshot(self, disk: str, name: str = "") -> str:
        """Return the name of a complete snapshot of a disk."""
        name = name or f"snap-{uuid.uuid4().hex[:12]}"
        body = self.snapshot_body(self.disk_id(disk))
        self.compute.snapshots.begin_create_or_update(RESOURCE_GROUP, name, body).result()
        return name

    def copy(self, snapshot: str, **properties: Any) -> str:
        creation = {"createOption": "Copy", "sourceResourceId": self.snapshot_id(snapshot)}
        body = {"location": LOCATION, "properties": {"creationData": creation} | properties}
        return self.make_disk(body=body)

    def path(self, name: str) -> Path:
        """Return the file behind a disk."""
        for facts in self.disks_folder.glob("*.json"):
            if json.loads(facts.read_text())["id"] == self.disk_id(name).lower():
                return facts.with_suffix(".disk")
        raise AssertionError(name)

    def group(self, rules: list[dict[str, Any]] | None = None, name: str = "") -> str:
        """Return the id of a security group; by default one that isolates."""
        name = name or f"nsg-{uuid.uuid4().hex[:12]}"
        group_id = f"{GROUP_ID}/providers/Microsoft.Network/networkSecurityGroups/{name}"
        wanted = isolated_rules() if rules is None else rules
        body = {"location": LOCATION, "properties": {"securityRules": wanted}}
        status, _, _ = self.ask("PUT", group_id, body)
        assert status in {200, 201}
        self.until(
            lambda: self.ask("GET", group_id)[1]["properties"]["provisioningState"] == "Succeeded"
        )
        return group_id

    def isolated(self) -> str:
        self.usual_group = self.usual_group or self.group()
        return self.usual_group

    def machine_body(self, group_id: str, storage: dict[str, Any], **more: Any) -> dict[str, Any]:
        address = {"name": "address", "properties": {"subnet": {"id": SUBNET_ID}}}
        nic: dict[str, Any] = {
            "primary": True,
            "deleteOption": "Delete",
            "ipConfigurations": [address],
        }
        if group_id:
            nic["networkSecurityGroup"] = {"id": group_id}
        properties = {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": storage,
            "networkProfile": {
                "networkApiVersion": "2022-11-01",
                "networkInterfaceConfigurations": [{"name": "nic", "properties": nic}],
            },
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
        }
        return {
            "location": LOCATION,
            "tags": {"imageport:site": "lab"},
            "properties": properties | more,
        }

    def make_machine(self, body: dict[str, Any], name: str = "") -> str:
        name = name or f"vm-{uuid.uuid4().hex[:12]}"
        self.compute.virtual_machines.begin_create_or_update(RESOURCE_GROUP, name, body).result()
        return name

    def delete_machine(self, name: str) -> None:
        self.compute.virtual_machines.begin_delete(RESOURCE_GROUP, name).result()

    def power(self, name: str) -> str:
        view = self.compute.virtual_machines.instance_view(RESOURCE_GROUP, name).as_dict()
        codes = [str(item["code"]) for item in view["statuses"]]
        return next((code.split("/")[1] for code in codes if code.startswith("PowerState")), "")

    def console(self, name: str) -> str:
        found = self.compute.virtual_machines.retrieve_boot_diagnostics_data(RESOURCE_GROUP, name)
        url = str(found.serial_console_log_blob_uri)
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
            return str(answer.read().decode())

    def machine_facts(self, name: str) -> dict[str, Any]:
        """Return what the hypervisor says of a machine."""
        found = [item for item in self.service.machines() if item["id"].startswith(f"{name}-")]
        return found[-1]


def connect(service: AzureService) -> Subscription:
    compute = ComputeManagementClient(
        Credential(),
        SUBSCRIPTION,
        base_url=service.endpoint,
        credential_scopes=["https://management.azure.com/.default"],
        authentication_policy=Bearer(),
        polling_interval=0.02,
        retry_total=0,
    )
    return Subscription(service, compute)


NORMAL = {"state_seconds": 0.03}


@pytest.fixture(scope="session")
def shared_subscription(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscription]:
    with AzureService(tmp_path_factory.mktemp("azure"), **NORMAL) as service:
        subscription = connect(service)
        yield subscription
        subscription.compute.close()


@pytest.fixture
def azure(shared_subscription: Subscription) -> Iterator[Subscription]:
    """The shared subscription; knobs that a test turned are turned back."""
    yield shared_subscription
    shared_subscription.service.turn(**json.loads(Knobs(**NORMAL).to_json()))


@pytest.fixture
def own_azure(tmp_path: Path) -> Iterator[Callable[..., Subscription]]:
    """A way to start subscriptions that a test may stop, kill and start again."""
    started: list[Subscription] = []

    def start(**knobs: Any) -> Subscription:
        service = AzureService(tmp_path / "azure", **(NORMAL | knobs))
        service.start()
        started.append(connect(service))
        return started[-1]

    yield start
    for subscription in started:
        subscription.compute.close()
        subscription.service.stop()


@pytest.fixture
def refused() -> Callable[..., tuple[str, str, int]]:
    """Call something that Azure refuses; returns code, target with message, and status."""

    def check(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[str, str, int]:
        def finish() -> None:
            found = call(*arguments, **named)
            if hasattr(found, "result"):
                found.result()

        with pytest.raises(HttpResponseError) as caught:
            finish()
        error = caught.value
        assert error.error is not None
        words = f"{error.error.target or ''}: {error.error.message}"
        return str(error.error.code), words, int(error.status_code or 0)

    return check
