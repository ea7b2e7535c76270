"""An AWS account on this machine for tests: the strict emulator, a bucket and a subnet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import boto3

from imageport.cloud import Cloud, CloudDisk
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.disks import attached_to
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.tags import TAG_SITE
from imageport.sandbox.aws.service import AwsService
from imageport.state.ledger import Ledger
from tests.clouds.aws_lost_answers import losing_answers
from tests.clouds.cloud_contract import SITE, BadPlace
from tests.clouds.machine_lab import MachineLab

REGION = "eu-central-1"
BUCKET = "imageport-jobs"
CALM: dict[str, Any] = {
    "throttle_rps": 0.0,
    "control_rps": 0.0,
    "fault_rate": 0.0,
    "unknown_seconds": 0.0,
    "complete_seconds": 0.05,
    "state_seconds": 0.05,
    "empty_pages": False,
    "denied": [],
    "boot_command": [],
}
"""Knobs between tests."""


def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="AKIATEST", aws_secret_access_key="test", region_name=REGION
    )


class Connections:
    """Clients of one emulator for all tests: making one costs more than a test does."""

    def __init__(self, service: AwsService) -> None:
        self.service = service
        self.session = session()
        self.ec2: Any = self.session.client("ec2", endpoint_url=service.endpoint)
        self.ebs: Any = self.session.client("ebs", endpoint_url=service.endpoint)
        self.s3: Any = self.session.client("s3", endpoint_url=service.endpoint)
        self.subnet: dict[str, Any] = self.ec2.describe_subnets()["Subnets"][0]
        place: Any = {"LocationConstraint": REGION}
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        settings = AwsSettings(region=REGION, endpoint_url=service.endpoint)
        self.shared = AwsClients(self.session, settings)

    def close(self) -> None:
        for client in (self.ec2, self.ebs, self.s3, self.shared):
            client.close()


class AwsLab(MachineLab):
    """The account; every test has its own state store and its own sites' tags to look for."""

    troubles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "throttled": {"throttle_rps": 2.0, "control_rps": 8.0},
        "failing": {"fault_rate": 0.25},
    }
    calm: ClassVar[Mapping[str, object]] = CALM
    name = "aws"
    driver = "ena"
    disk_kind = "volume"
    engine_needs = ("bucket", "subnet_id")
    boot_kinds = frozenset({"instance", "machine-image", "snapshot", "volume", "security-group"})
    boot_ids = ("sg-", "snap-", "ami-", "i-")
    endings: ClassVar[Mapping[str, str]] = {
        "stop": "stopped: Client.UserInitiated",
        "delete": "(shutting-down|terminated): Client.UserInitiated",
    }
    engine_denied = "ec2:RunInstances"
    boot_denied = "ec2:StartInstances"
    bad_day: ClassVar[Mapping[str, object]] = {"fault_rate": 0.1}
    secrets = ("X-Amz-Signature", "X-Amz-Credential", "AWSAccessKeyId", "Signature=")
    log_level = logging.INFO
    """What botocore tells at its lowest level has the headers of requests, and URLs, in it."""

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self.service = connections.service
        self.session = connections.session
        self.ec2, self.ebs, self.s3 = connections.ec2, connections.ebs, connections.s3
        self._shared = connections.shared
        self._subnet = connections.subnet

    def settings(self, **changes: Any) -> AwsSettings:
        known: dict[str, Any] = {
            "region": REGION,
            "availability_zone": self._subnet["AvailabilityZone"],
            "bucket": BUCKET,
            "subnet_id": self._subnet["SubnetId"],
            "site": SITE,
            "endpoint_url": self.service.endpoint,
        }
        return AwsSettings(**(known | changes))

    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Cloud:
        return self.aws_cloud(run, ledger=ledger, site=site)

    def cloud_with(self, run: str, *, ledger: Ledger | None = None, **changes: object) -> Cloud:
        return self.aws_cloud(run, ledger=ledger, **changes)

    def aws_cloud(self, run: str, *, ledger: Ledger | None = None, **changes: Any) -> AwsCloud:
        made = AwsCloud(self.settings(**changes), self.session, ledger or self.state.ledger, run)
        made._account.clients = self._shared
        return made

    def account(self, run: str, **changes: Any) -> Account:
        return Account(self.settings(**changes), self._shared, self.state.ledger, run)

    def bad_place(self) -> BadPlace:
        wrong: dict[str, Any] = {
            "site": "frankfurt/main",
            "subnet_id": "subnet-0123456789abcdef0",
            "bucket": "imageport-nowhere",
            "boot_instance_type": "c4.large",
        }
        return BadPlace(self.aws_cloud("run-1", **wrong), frozenset(wrong))

    def is_free(self, disk: CloudDisk) -> bool:
        return attached_to(self.account("look"), disk.id) == ""

    def instances(self) -> list[dict[str, Any]]:
        """Return every machine with our tags, those too that were terminated within the hour."""
        tagged: Any = [{"Name": "tag-key", "Values": [TAG_SITE]}]
        answer = self.ec2.describe_instances(Filters=tagged)
        return [item for entry in answer["Reservations"] for item in entry["Instances"]]

    def end_machine(self, act: str) -> None:
        alive = [item for item in self.instances() if item["State"]["Name"] == "running"]
        [machine] = [item["InstanceId"] for item in alive]
        if act == "stop":
            self.ec2.stop_instances(InstanceIds=[machine], Force=True)
        else:
            self.ec2.terminate_instances(InstanceIds=[machine])

    def saved(self, reason: str) -> bytes:
        key = reason.split(f"s3://{BUCKET}/", 1)[1]
        data: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def consoles(self) -> list[str]:
        found = [item["InstanceId"] for item in self.instances()]
        return [self.ec2.get_console_output(InstanceId=item).get("Output", "") for item in found]

    def turn(self, **knobs: object) -> None:
        self.service.turn(**knobs)

    @contextlib.contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        lost = name == "losing answers"  # which the service itself does for block writes alone
        with losing_answers(self._shared) if lost else super().trouble(name):
            yield

    def empty(self) -> None:
        """Delete everything that carries our tags, so that tests do not see each other."""
        self.service.turn(**CALM)
        tagged = [{"Name": "tag-key", "Values": [TAG_SITE]}]
        for volume in self.ec2.describe_volumes(Filters=tagged)["Volumes"]:
            if volume["State"] != "available":
                self._empty_through_the_cloud()
                return
        for volume in self.ec2.describe_volumes(Filters=tagged)["Volumes"]:
            self.ec2.delete_volume(VolumeId=volume["VolumeId"])
        for snapshot in self.ec2.describe_snapshots(Filters=tagged)["Snapshots"]:
            self.ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
        for group in self.ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]:
            self.ec2.delete_security_group(GroupId=group["GroupId"])
        for item in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.s3.delete_object(Bucket=BUCKET, Key=item["Key"])

    def everything(self) -> list[str]:
        """Return every resource that carries any tag of ours, and every object."""
        tagged = [{"Name": "tag-key", "Values": [TAG_SITE]}]
        volumes = self.ec2.describe_volumes(Filters=tagged)["Volumes"]
        snapshots = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return [
            *(item["VolumeId"] for item in volumes),
            *(item["SnapshotId"] for item in snapshots),
            *self.leftovers(),
        ]

    def leftovers(self) -> list[str]:
        tagged = [{"Name": "tag-key", "Values": [TAG_SITE]}]
        over = {"shutting-down", "terminated"}
        alive = [item for item in self.instances() if item["State"]["Name"] not in over]
        found = [item["InstanceId"] for item in alive]
        images = self.ec2.describe_images(Owners=["self"], Filters=tagged)["Images"]
        found += [item["ImageId"] for item in images]
        groups = self.ec2.describe_security_groups(Filters=tagged)["SecurityGroups"]
        found += [item["GroupId"] for item in groups]
        objects = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return found + [item["Key"] for item in objects]

    def _empty_through_the_cloud(self) -> None:
        for site in (SITE, "paris"):
            cloud = self.aws_cloud("tidy", site=site)
            for resource in cloud.list_ours(site):
                cloud.delete_resource(resource)
