"""The clouds of the laboratory, opened as their blocks would open them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from imageport.cloud import Cloud
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.azure.cloud import AzureCloud
from imageport.clouds.azure.credentials import laboratory_credential
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.gcp.cloud import GcpCloud
from imageport.clouds.gcp.credentials import credentials_from_file
from imageport.clouds.gcp.settings import GcpSettings
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.azure.account import (
    LOCATION,
    RESOURCE_GROUP,
    SUBNET_ID,
    SUBSCRIPTION,
    job_container_url,
)
from imageport.sandbox.azure.service import AzureService
from imageport.sandbox.gcp import account as gcp
from imageport.sandbox.gcp.service import GcpService
from imageport.sandbox.site import BUCKET, REGION, ZONE, prepare_account
from imageport.state.ledger import Ledger

SITE = "site-a"


class LabCloud(ABC):
    """One emulated account, reached over its endpoint from any process."""

    name: str
    region: str
    drivers: tuple[str, ...]
    """Folders of the payload that its machines need."""
    boot_drivers: tuple[str, ...]
    """Services that Windows must start at boot there."""
    throttle: tuple[str, float]
    """The emulator's knob that limits block writes, and what a block a second is in its units."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self.folder = folder
        """Of the emulator; some clouds' credentials lie there."""

    @abstractmethod
    def open(self, ledger: Ledger, run: str, **changes: Any) -> Cloud:
        """Return the cloud for one run."""


class LabAws(LabCloud):
    name, region, drivers, boot_drivers = "aws", REGION, ("aws",), ("stornvme",)
    throttle = ("throttle_rps", 1.0)

    def open(self, ledger: Ledger, run: str, **changes: Any) -> Cloud:
        session = boto3.Session("lab-key", "lab-secret-key", region_name=REGION)
        known: dict[str, Any] = {
            "region": REGION,
            "availability_zone": ZONE,
            "bucket": BUCKET,
            "subnet_id": prepare_account(self.endpoint),
            "site": SITE,
            "endpoint_url": self.endpoint,
        }
        return AwsCloud(AwsSettings(**(known | changes)), session, ledger, run)


class LabAzure(LabCloud):
    name, region, drivers = "azure", LOCATION, ()
    boot_drivers = ("vmbus", "storvsc", "vpci", "stornvme")
    throttle = ("mib_per_second", 0.5)

    def open(self, ledger: Ledger, run: str, **changes: Any) -> Cloud:
        known: dict[str, Any] = {
            "subscription_id": SUBSCRIPTION,
            "resource_group": RESOURCE_GROUP,
            "location": LOCATION,
            "subnet_id": SUBNET_ID,
            "job_container_url": job_container_url(self.endpoint),
            "site": SITE,
            "endpoint_url": self.endpoint,
        }
        credential = laboratory_credential(self.endpoint)
        return AzureCloud(AzureSettings(**(known | changes)), credential, ledger, run)


class LabGcp(LabCloud):
    name, region, drivers = "gcp", gcp.REGION, ("gcp",)
    boot_drivers = ("vioscsi",)
    throttle = ("requests_per_second", 1.0)

    def open(self, ledger: Ledger, run: str, **changes: Any) -> Cloud:
        known: dict[str, Any] = {
            "project": gcp.PROJECT,
            "region": gcp.REGION,
            "zone": gcp.ZONE,
            "bucket": gcp.BUCKET,
            "subnet": gcp.SUBNET,
            "site": SITE,
            "endpoint_url": self.endpoint,
        }
        settings = GcpSettings(**(known | changes))
        credentials = credentials_from_file(self.folder / gcp.KEY_FILE, settings)
        return GcpCloud(settings, credentials, ledger, run)


LAB_CLOUDS: dict[str, type[LabCloud]] = {"aws": LabAws, "azure": LabAzure, "gcp": LabGcp}
SERVICES: dict[str, Any] = {"aws": AwsService, "azure": AzureService, "gcp": GcpService}


@contextmanager
def running(name: str, root: Path) -> Iterator[tuple[LabCloud, Any]]:
    """Start the emulator of a cloud; yield the account and the service with its knobs."""
    service = SERVICES[name](root / name)
    try:
        service.start()
        yield LAB_CLOUDS[name](service.endpoint, root / name), service
    finally:
        service.stop()
