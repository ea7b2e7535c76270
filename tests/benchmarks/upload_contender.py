"""One way of uploading a VHDX from a share to EBS, in a process of its own so that its memory and
CPU can be told: run by `test_upload_from_smb`.

Arguments: ``imageport`` or ``loop``, endpoint, location of the share's folder, file name. User and
password come from the environment. Prints one JSON object.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, GIB
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.pipeline import TransferRequest, VerifyLevel, transfer

REGION = "eu-central-1"
THREADS = 64


def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="AKIATEST", aws_secret_access_key="test", region_name=REGION
    )


def imageport(disk: VirtualDisk, endpoint: str) -> dict[str, Any]:
    """What this product does, with the block policy of a snapshot that is never encrypted."""
    state = StateStore(MemoryFolder())
    settings = AwsSettings(
        region=REGION, site="bench", endpoint_url=endpoint, unencrypted_for_ever=True
    )
    target = AwsCloud(settings, session(), state.ledger, "bench").upload_target("bench")
    request = TransferRequest(state.journals.open("bench"), "bench", verify=VerifyLevel.AGGREGATE)
    result = transfer(disk, target, request)
    target.close()
    return {
        "snapshot": result.reference,
        "read_bytes": result.stats.bytes_read,
        "sent_bytes": result.stats.bytes_sent,
    }


class Loop:
    """The peers' way: 64 threads, every block read and put, checksums, no look at extents."""

    def __init__(self, disk: VirtualDisk, endpoint: str) -> None:
        self._disk = disk
        settings = Config(
            retries={"total_max_attempts": 8, "mode": "standard"}, max_pool_connections=THREADS
        )
        self._ebs = session().client("ebs", endpoint_url=endpoint, config=settings)
        self._snapshot = ""
        self._read_bytes = 0
        self._lock = threading.Lock()

    def run(self) -> dict[str, Any]:
        disk = self._disk
        size_gib = -(-disk.size_bytes // GIB)
        self._snapshot = self._ebs.start_snapshot(VolumeSize=size_gib)["SnapshotId"]
        count = -(-disk.size_bytes // BLOCK_BYTES)
        with ThreadPoolExecutor(THREADS) as pool:
            digests = list(pool.map(self._put, range(count)))
        total = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
        self._ebs.complete_snapshot(
            SnapshotId=self._snapshot,
            ChangedBlocksCount=count,
            Checksum=total,
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
        return {
            "snapshot": self._snapshot,
            "read_bytes": self._read_bytes,
            "sent_bytes": count * BLOCK_BYTES,
        }

    def _put(self, index: int) -> bytes:
        data = self._disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES)
        digest = hashlib.sha256(data).digest()
        with self._lock:
            self._read_bytes += len(data)
        self._ebs.put_snapshot_block(
            SnapshotId=self._snapshot,
            BlockIndex=index,
            BlockData=data,
            DataLength=BLOCK_BYTES,
            Checksum=base64.b64encode(digest).decode(),
            ChecksumAlgorithm="SHA256",
        )
        return digest


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
