"""An AWS account on this machine for tests: the strict emulator, a bucket and a subnet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import boto3

from imageport.cloud import Cloud
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.tags import TAG_SITE
from imageport.sandbox.aws.service import AwsService
from imageport.state.ledger import Ledger
from tests.clouds.aws_lost_answers import losing_answers
from tests.clouds.cloud_contract import SITE, BadPlace, CloudLab

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


class AwsLab(CloudLab):
    """The account; every test has its own state store and its own sites' tags to look for."""

    troubles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "throttled": {"throttle_rps": 2.0, "control_rps": 8.0},
        "failing": {"fault_rate": 0.25},
    }
    calm: ClassVar[Mapping[str, object]] = CALM

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
        alive = {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]}
        machines = self.ec2.describe_instances(Filters=[*tagged, alive])["Reservations"]
        found = [item["InstanceId"] for entry in machines for item in entry["Instances"]]
        volumes = self.ec2.describe_volumes(Filters=tagged)["Volumes"]
        found += [item["VolumeId"] for item in volumes]
        snapshots = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        found += [item["SnapshotId"] for item in snapshots]
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
