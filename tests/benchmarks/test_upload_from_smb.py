"""Upload of 4 GiB with 1 GiB of data from a real share, against a 64-thread boto3 loop.

Both read through the same VHDX reader and write to the same strict emulator, one after the other in
the same run. Figures are printed; only bytes are asserted, because time belongs to the machine.
``pytest tests/benchmarks -m slow -s`` shows them.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from imageport.model import BLOCK_BYTES, MIB
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.samba import SambaServer
from tests.benchmarks.contest import (
    DATA_BYTES,
    NAME,
    SIZE_BYTES,
    run_contender,
    say,
    share,
    tell,
    tell_ratio,
    write_image,
)

SCRIPT = Path(__file__).with_name("upload_contender.py")
REGION = "eu-central-1"
OTHER_TOOLS = ("coldsnap", "rclone")


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    with share(tmp_path_factory.mktemp("samba")) as server:
        yield server


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsService]:
    with AwsService(tmp_path_factory.mktemp("aws")) as service:
        yield service


def run(contender: str, samba: SambaServer, aws: AwsService) -> dict[str, Any]:
    return run_contender(SCRIPT, contender, aws.endpoint, samba.location("store"), NAME)


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


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_upload_reads_and_sends_what_is_allocated_and_the_loop_everything(
    samba: SambaServer, aws: AwsService
):
    allocated_bytes = write_image(samba)
    ours = run("imageport", samba, aws)
    loop = run("loop", samba, aws)
    say(f"allocated  {allocated_bytes / MIB:12.0f} MiB of {SIZE_BYTES / MIB:.0f} MiB")
    tell("imageport", ours)
    tell("64 threads", loop)
    tell_ratio("loop", loop, ours)
    for tool in OTHER_TOOLS:
        why = "is here, but nothing drives it" if shutil.which(tool) else "is not installed"
        say(f"not compared: {tool} {why}")
    assert ours["read_bytes"] <= allocated_bytes * 1.01
    assert ours["sent_bytes"] <= allocated_bytes * 1.01
    assert ours["read_bytes"] >= DATA_BYTES
    assert loop["sent_bytes"] == SIZE_BYTES
    assert sampled_blocks_are_equal(aws, ours["snapshot"], loop["snapshot"])
