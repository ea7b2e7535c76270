"""One emulated account for all tests of this folder, and the few steps they repeat."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.aws.service import AwsService

BLOCK = 512 * 1024
REGION = "eu-central-1"
ZONE = "eu-central-1a"


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@dataclass
class Account:
    service: AwsService
    ebs: Any
    ec2: Any
    s3: Any

    def start(self, size_gib: int = 1, **chosen: Any) -> str:
        return str(self.ebs.start_snapshot(VolumeSize=size_gib, **chosen)["SnapshotId"])

    def put(self, snapshot_id: str, index: int, data: bytes, **changes: Any) -> None:
        request: dict[str, Any] = {
            "SnapshotId": snapshot_id,
            "BlockIndex": index,
            "BlockData": data,
            "DataLength": BLOCK,
            "Checksum": b64(hashlib.sha256(data).digest()),
            "ChecksumAlgorithm": "SHA256",
        }
        self.ebs.put_snapshot_block(**(request | changes))

    def complete(self, snapshot_id: str, count: int, **chosen: Any) -> None:
        self.ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=count, **chosen)

    def snapshot(self, blocks: dict[int, bytes], size_gib: int = 1, **chosen: Any) -> str:
        """Return a completed snapshot of these blocks."""
        snapshot_id = self.start(size_gib, **chosen)
        for index, data in blocks.items():
            self.put(snapshot_id, index, data)
        self.complete(snapshot_id, len(blocks))
        self.until(lambda: self.snapshot_state(snapshot_id) == "completed")
        return snapshot_id

    def snapshot_state(self, snapshot_id: str) -> str:
        found = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return str(found[0]["State"])

    def read(self, snapshot_id: str) -> dict[int, bytes]:
        """Return all blocks of a snapshot, as a client reads them."""
        found = {}
        for block in self.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]:
            answer = self.ebs.get_snapshot_block(SnapshotId=snapshot_id, **block)
            with answer["BlockData"] as body:
                found[block["BlockIndex"]] = body.read()
        return found

    def volume(self, **chosen: Any) -> str:
        """Return a volume that is available."""
        request = {"AvailabilityZone": ZONE, "VolumeType": "gp3"} | chosen
        if "SnapshotId" not in request:
            request.setdefault("Size", 1)
        volume_id = str(self.ec2.create_volume(**request)["VolumeId"])
        self.until(lambda: self.volume_state(volume_id) == "available")
        return volume_id

    def volume_state(self, volume_id: str) -> str:
        return str(self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"])

    def attachment(self, volume_id: str) -> str:
        found = self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Attachments"]
        return str(found[0]["State"]) if found else "none"

    def attach(self, volume_id: str, instance_id: str, device: str = "/dev/sdf") -> None:
        self.ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
        self.until(lambda: self.attachment(volume_id) == "attached")

    def detach(self, volume_id: str) -> None:
        self.ec2.detach_volume(VolumeId=volume_id)
        self.until(lambda: self.volume_state(volume_id) == "available")

    def instance(self, instance_id: str) -> dict[str, Any]:
        answer = self.ec2.describe_instances(InstanceIds=[instance_id])
        return dict(answer["Reservations"][0]["Instances"][0])

    def until_state(self, instance_id: str, state: str) -> dict[str, Any]:
        self.until(lambda: self.instance(instance_id)["State"]["Name"] == state)
        return self.instance(instance_id)

    def console(self, instance_id: str) -> str:
        answer = self.ec2.get_console_output(InstanceId=instance_id, Latest=True)
        return str(answer.get("Output", ""))

    def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not so after {seconds} s"
            time.sleep(0.05)


@dataclass
class Network:
    account: Account
    subnet_id: str
    vpc_id: str

    def group(self, name: str, *, isolated: bool) -> str:
        ec2 = self.account.ec2
        group_id = str(
            ec2.create_security_group(GroupName=name, Description="test", VpcId=self.vpc_id)[
                "GroupId"
            ]
        )
        if isolated:
            everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
            ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=[everywhere])
        return group_id

    def run(self, image_id: str, group_id: str, **chosen: Any) -> str:
        interface = {
            "DeviceIndex": 0,
            "SubnetId": self.subnet_id,
            "Groups": [group_id],
            "AssociatePublicIpAddress": False,
            "DeleteOnTermination": True,
        }
        request = {
            "ImageId": image_id,
            "InstanceType": "m6i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "NetworkInterfaces": [interface],
        } | chosen
        return str(self.account.ec2.run_instances(**request)["Instances"][0]["InstanceId"])

    def stub(self, name: str) -> str:
        """Return an image with an empty disk, as boot-once uses it."""
        account = self.account
        snapshot_id = account.snapshot({0: bytes(BLOCK)})
        mapping = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}
        answer = account.ec2.register_image(
            Name=name,
            Architecture="x86_64",
            VirtualizationType="hvm",
            BootMode="uefi",
            TpmSupport="v2.0",
            EnaSupport=True,
            RootDeviceName="/dev/sda1",
            BlockDeviceMappings=[mapping],
        )
        return str(answer["ImageId"])

    def debian(self) -> str:
        found = self.account.ec2.describe_images(Owners=["136693071363"])
        return str(found["Images"][0]["ImageId"])


def connect(service: AwsService) -> Account:
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=5)
    session = boto3.Session("test", "test", region_name=REGION)

    def client(name: Any) -> Any:
        return session.client(name, endpoint_url=service.endpoint, config=config)

    return Account(service, client("ebs"), client("ec2"), client("s3"))


def disconnect(account: Account) -> None:
    for client in (account.ebs, account.ec2, account.s3):
        client.close()


@pytest.fixture(scope="session")
def shared_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    root = tmp_path_factory.mktemp("aws")
    with AwsService(root, state_seconds=0.1, complete_seconds=0.1) as service:
        account = connect(service)
        yield account
        disconnect(account)


@pytest.fixture
def account(shared_account: Account) -> Iterator[Account]:
    """The shared account; knobs that a test turned are turned back."""
    yield shared_account
    normal = json.loads(Knobs(state_seconds=0.1, complete_seconds=0.1).to_json())
    shared_account.service.turn(**normal)


@pytest.fixture
def network(account: Account) -> Network:
    vpc_id = account.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = account.ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.9.1.0/24", AvailabilityZone=ZONE)
    return Network(account, subnet["Subnet"]["SubnetId"], vpc_id)


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Account]]:
    """A way to start accounts that a test may stop, kill and start again."""
    started: list[Account] = []

    def start(**knobs: Any) -> Account:
        service = AwsService(tmp_path / "aws", state_seconds=0.1, complete_seconds=0.1, **knobs)
        service.start()
        started.append(connect(service))
        return started[-1]

    yield start
    for account in started:
        disconnect(account)
        account.service.stop()


@pytest.fixture
def refused() -> Callable[..., dict[str, Any]]:
    """Call something that AWS refuses; returns code, reason and message."""

    def check(call: Callable[..., Any], *arguments: Any, **named: Any) -> dict[str, Any]:
        with pytest.raises(ClientError) as caught:
            call(*arguments, **named)
        answer: dict[str, Any] = dict(caught.value.response)
        return {
            "code": answer["Error"]["Code"],
            "reason": answer.get("Reason", ""),
            "message": answer["Error"]["Message"],
            "status": answer["ResponseMetadata"]["HTTPStatusCode"],
        }

    return check
