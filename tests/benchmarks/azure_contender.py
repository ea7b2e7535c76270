"""One way of uploading a VHDX from a share to a managed disk, in a process of its own so that its
memory and CPU can be told: run by `test_azure_upload`.

Arguments: ``imageport`` or ``loop``, endpoint, location of the share's folder, file name. User and
password come from the environment. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobClient

from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.cloud import AzureCloud
from imageport.clouds.azure.credentials import laboratory_credential
from imageport.clouds.azure.disks import create_upload_disk
from imageport.clouds.azure.footer import FOOTER_BYTES, vhd_footer
from imageport.clouds.azure.names import DISKS, resource_id, resource_name
from imageport.clouds.azure.settings import AzureSettings
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB
from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP, SUBNET_ID, SUBSCRIPTION
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.pipeline import TransferRequest, VerifyLevel, transfer

THREADS = 16
"""What azure-vhd-utils and the portal's samples start."""
PUT_BYTES = 4 * MIB


def settings_of(endpoint: str) -> AzureSettings:
    return AzureSettings(
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
        location=LOCATION,
        site="bench",
        subnet_id=SUBNET_ID,
        endpoint_url=endpoint,
    )


def imageport(disk: VirtualDisk, endpoint: str) -> dict[str, Any]:
    """What this product does."""
    state = StateStore(MemoryFolder())
    cloud = AzureCloud(
        settings_of(endpoint), laboratory_credential(endpoint), state.ledger, "bench"
    )
    target = cloud.upload_target("bench")
    request = TransferRequest(state.journals.open("bench"), "bench", verify=VerifyLevel.AGGREGATE)
    result = transfer(disk, target, request)
    target.close()
    cloud.close()
    return {
        "snapshot": result.reference,
        "read_bytes": result.stats.bytes_read,
        "sent_bytes": result.stats.bytes_sent,
    }


class UploadDisk:
    """An empty managed disk, open for upload with a footer: what every tool needs first."""

    def __init__(self, endpoint: str, name: str, size_bytes: int) -> None:
        settings = settings_of(endpoint)
        self._clients = AzureClients(settings, laboratory_credential(endpoint))
        ledger = StateStore(MemoryFolder()).ledger
        self._account = AzureAccount(settings, self._clients, ledger, "bench")
        intent = self._account.intend("disk", "upload", name)
        self.id = resource_id(settings, DISKS, resource_name(intent))
        create_upload_disk(self._account, self.id, intent, size_bytes + FOOTER_BYTES)
        self._grant = AccessGrant(self._account, self.id, "Write", 3600.0)
        self.url = self._grant.url()

    def finish(self) -> None:
        """End the upload; Azure looks at the footer now."""
        self._grant.revoke()
        self._clients.close()


class Loop:
    """The plain way: 16 threads of `upload_page`, every byte read and put, no look at extents."""

    def __init__(self, disk: VirtualDisk, endpoint: str) -> None:
        self._disk = disk
        self._target = UploadDisk(endpoint, "loop", disk.size_bytes)
        self._blob = BlobClient.from_blob_url(self._target.url)
        self._read_bytes = 0
        self._lock = threading.Lock()

    def run(self) -> dict[str, Any]:
        size = self._disk.size_bytes
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._put, range(0, size, PUT_BYTES)))
        footer = vhd_footer(size, self._target.id)
        self._blob.upload_page(footer, offset=size, length=len(footer))
        self._blob.close()
        self._target.finish()
        return {"disk": self._target.id, "read_bytes": self._read_bytes, "sent_bytes": size}

    def _put(self, offset: int) -> None:
        length = min(PUT_BYTES, self._disk.size_bytes - offset)
        data = self._disk.read_at(offset, length)
        with self._lock:
            self._read_bytes += len(data)
        self._blob.upload_page(data, offset=offset, length=length, validate_content=True)


def peak_mib() -> float:
    """The most memory this program held; ru_maxrss starts with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    name, endpoint, location, file_name = sys.argv[1:]
    with open_folder(location, credentials_from_environment()) as folder:
        started, cpu = time.monotonic(), time.process_time()
        with open_disk(folder.open_read(file_name, deny_write=True)) as disk:
            found = imageport(disk, endpoint) if name == "imageport" else Loop(disk, endpoint).run()
    found["seconds"] = round(time.monotonic() - started, 1)
    found["cpu_seconds"] = round(time.process_time() - cpu, 1)
    found["peak_mib"] = round(peak_mib())
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
