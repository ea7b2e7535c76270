"""Upload of 4 GiB with 1 GiB of data from a real share, against a 64-thread boto3 loop.

Both read through the same VHDX reader and write to the same strict emulator, one after the other in
the same run. Figures are printed; only bytes are asserted, because time belongs to the machine.
``pytest tests/benchmarks -m slow -s`` shows them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import BLOCK_BYTES, GIB, MIB
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.samba import SambaServer
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation

SCRIPT = Path(__file__).with_name("upload_contender.py")
USER = "bench"
PASSWORD = "Planted-Secret-2718"
NAME = "golden.vhdx"
SIZE_BYTES = 4 * GIB
DATA_BYTES = GIB
PIECE_BYTES = 4 * MIB
REGION = "eu-central-1"
OTHER_TOOLS = ("coldsnap", "azcopy", "rclone")


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("samba")
    with SambaServer(root / "server", {"store": root / "store"}, USER, PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsService]:
    with AwsService(tmp_path_factory.mktemp("aws")) as service:
        yield service


@pytest.fixture(scope="module")
def allocated_bytes(samba: SambaServer) -> int:
    """Write the image over the share; return what of it the file system has stored.

    Half of the data fills whole payload blocks, half is scattered, as on a disk in use.
    """
    half = DATA_BYTES // 2
    places = [number * PIECE_BYTES for number in range(half // PIECE_BYTES)]
    places += random.sample(range(half, SIZE_BYTES, PIECE_BYTES), half // PIECE_BYTES)
    location = SmbLocation.parse(samba.location("store"))
    with SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder:
        with folder.create(NAME) as file:
            file.set_sparse()
            writer = VhdxWriter(file, SIZE_BYTES)
            for place in sorted(places):
                for start in range(place, place + PIECE_BYTES, MIB):
                    writer.write_at(start, random.randbytes(MIB))  # noqa: S311 - contents
            writer.finish()
        with folder.open_read(NAME) as file:
            return sum(length for _offset, length in file.allocated_ranges())


def run(contender: str, samba: SambaServer, aws: AwsService) -> dict[str, Any]:
    environment = os.environ | {"IMAGEPORT_SMB_USER": USER, "IMAGEPORT_SMB_PASSWORD": PASSWORD}
    argv = [sys.executable, str(SCRIPT), contender, aws.endpoint, samba.location("store"), NAME]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tell(title: str, values: dict[str, Any]) -> None:
    sys.stdout.write(
        f"\n{title:<10} read {values['read_bytes'] / MIB:7.0f} MiB   "
        f"sent {values['sent_bytes'] / MIB:7.0f} MiB   {values['seconds']:7.1f} s   "
        f"CPU {values['cpu_seconds']:6.1f} s   peak {values['peak_mib']:5d} MiB"
    )


def sampled_blocks_are_equal(aws: AwsService, first: str, second: str) -> bool:
    """Compare blocks of both snapshots by the API; one that is not stored is zeros."""
    place: dict[str, Any] = {
        "endpoint_url": aws.endpoint,
        "region_name": REGION,
        "aws_access_key_id": "AKIATEST",
        "aws_secret_access_key": "test",
    }
    ebs: Any = boto3.client("ebs", **place)
    # Completion is asynchronous; a pending snapshot cannot be listed.
    completed: Any = boto3.client("ec2", **place).get_waiter("snapshot_completed")
    completed.wait(SnapshotIds=[first, second], WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    def tokens(snapshot: str) -> dict[int, str]:
        found: dict[int, str] = {}
        more: dict[str, str] = {}
        while True:
            page = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=10000, **more)
            found |= {block["BlockIndex"]: block["BlockToken"] for block in page["Blocks"]}
            if "NextToken" not in page:
                return found
            more = {"NextToken": page["NextToken"]}

    def read(snapshot: str, known: dict[int, str], index: int) -> bytes:
        if index not in known:
            return bytes(BLOCK_BYTES)
        answer = ebs.get_snapshot_block(
            SnapshotId=snapshot, BlockIndex=index, BlockToken=known[index]
        )
        data: bytes = answer["BlockData"].read()
        return data

    ours, theirs = tokens(first), tokens(second)
    chosen = random.sample(sorted(theirs), 100)
    return all(read(first, ours, index) == read(second, theirs, index) for index in chosen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_upload_reads_and_sends_what_is_allocated_and_the_loop_everything(
    samba: SambaServer, aws: AwsService, allocated_bytes: int
):
    ours = run("imageport", samba, aws)
    loop = run("loop", samba, aws)
    sys.stdout.write(
        f"\nallocated  {allocated_bytes / MIB:12.0f} MiB of {SIZE_BYTES / MIB:.0f} MiB"
    )
    tell("imageport", ours)
    tell("64 threads", loop)
    ratios = {
        name: loop[name] / max(ours[name], 0.1)
        for name in ("read_bytes", "sent_bytes", "seconds", "cpu_seconds", "peak_mib")
    }
    words = ", ".join(f"{name} {value:.1f}" for name, value in ratios.items())
    sys.stdout.write(f"\nratio loop to imageport: {words}\n")
    for tool in OTHER_TOOLS:
        why = "is here, but nothing drives it" if shutil.which(tool) else "is not installed"
        sys.stdout.write(f"not compared: {tool} {why}\n")
    assert ours["read_bytes"] <= allocated_bytes * 1.01
    assert ours["sent_bytes"] <= allocated_bytes * 1.01
    assert ours["read_bytes"] >= DATA_BYTES
    assert loop["sent_bytes"] == SIZE_BYTES
    assert sampled_blocks_are_equal(aws, ours["snapshot"], loop["snapshot"])
