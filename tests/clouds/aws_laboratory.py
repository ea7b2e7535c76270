"""An AWS account on this machine for tests: the strict emulator, a bucket and a subnet."""

from __future__ import annotations

from typing import Any

import boto3

from imageport.cloud import Cloud
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.sandbox.aws.service import AwsService
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import SITE, CloudLab

REGION = "eu-central-1"
BUCKET = "imageport-jobs"
CALM: dict[str, Any] = {
    "throttle_rps": 0.0,
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


class AwsLab(CloudLab):
    """The account; every test has its own state store and its own sites' tags to look for."""

    def __init__(self, service: AwsService) -> None:
        super().__init__()
        self.service = service
        self.session = session()
        self.clouds: list[AwsCloud] = []
        self.ec2: Any = self.session.client("ec2", endpoint_url=service.endpoint)
        self.ebs: Any = self.session.client("ebs", endpoint_url=service.endpoint)
        self.s3: Any = self.session.client("s3", endpoint_url=service.endpoint)
        self._subnet: dict[str, Any] = self.ec2.describe_subnets()["Subnets"][0]
        if BUCKET not in {item["Name"] for item in self.s3.list_buckets()["Buckets"]}:
            place: Any = {"LocationConstraint": REGION}
            self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)

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
        self.clouds.append(made)
        return made

    def account(self, run: str, **changes: Any) -> Account:
        settings = self.settings(**changes)
        return Account(settings, AwsClients(self.session, settings), self.state.ledger, run)

    def close(self) -> None:
        """Remove what the test left, by the API alone, and close all connections."""
        for client in (self.ec2, self.ebs, self.s3):
            client.close()
        for cloud in self.clouds:
            cloud.close()

    def empty(self) -> None:
        """Delete everything tagged by us, of whatever site, so that tests do not see each other."""
        self.service.turn(**CALM)
        cloud = self.aws_cloud("tidy")
        for site in (SITE, "paris"):
            tidy = self.aws_cloud("tidy", site=site)
            for resource in tidy.list_ours(site):
                tidy.delete_resource(resource)
        cloud.close()
