"""The arguments that name a cloud account and a state store, for doctor and sweep.

Credentials are never arguments: the cloud's own chain finds them. AWS: environment, profile,
instance role. Azure: environment, federated token, managed identity. Google Cloud: the file that
GOOGLE_APPLICATION_CREDENTIALS names (federation or a key), gcloud's login, the machine's account.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import cast

import boto3

from imageport.cloud import Cloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.azure.settings import ENVIRONMENTS, AzureSettings
from imageport.clouds.azure.worker_login import worker_credential
from imageport.clouds.gcp.credentials import credentials_from_worker
from imageport.clouds.gcp.settings import DEFAULT_PREFIX, GcpSettings
from imageport.clouds.registry import CLOUDS, cloud_class
from imageport.doctor.grants import aws_grant, azure_grant, gcp_grant
from imageport.errors import InputError
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder

REAL_CLOUDS = sorted(name for name in CLOUDS if name != "memory")
_MEANT_BY = {
    "region": ("aws", "gcp"),
    "bucket": ("aws", "gcp"),
    "subscription": ("azure",),
    "resource_group": ("azure",),
    "location": ("azure",),
    "job_container": ("azure",),
    "environment": ("azure",),
    "project": ("gcp",),
    "prefix": ("gcp",),
}
"""Arguments that do not mean something at every cloud, and where they do."""


def add_state_argument(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare ``--state``."""
    parser.add_argument(
        "--state", required=required, default="", metavar="LOCATION",
        help="the state store: a folder or smb://host/share/folder",
    )  # fmt: skip


def add_cloud_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare the cloud account and the state store."""
    add_state_argument(parser, required=required)
    parser.add_argument("--cloud", choices=REAL_CLOUDS, required=required, help="the target cloud")
    parser.add_argument("--site", default="", help="the site whose resources are meant")
    parser.add_argument("--zone", default="", help="the availability zone")
    parser.add_argument(
        "--subnet", default="",
        help="the subnet for engine and boot machines; in Azure its full resource id, in Google "
        "Cloud projects/P/regions/R/subnetworks/S",
    )  # fmt: skip
    parser.add_argument("--endpoint-url", default="", help="another endpoint (embedded site)")
    aws = parser.add_argument_group("AWS and Google Cloud")
    aws.add_argument("--region", default="", help="the region, eu-central-1 or europe-west3")
    aws.add_argument(
        "--bucket", default="", help="the bucket for engine jobs; in Google Cloud for images too"
    )
    gcp = parser.add_argument_group("Google Cloud")
    gcp.add_argument("--project", default="", help="the project's id")
    gcp.add_argument(
        "--prefix",
        default="",
        help=f"the folder of the bucket (default: {DEFAULT_PREFIX})",
    )
    azure = parser.add_argument_group("Azure")
    azure.add_argument("--subscription", default="", help="the subscription's id")
    azure.add_argument("--resource-group", default="", help="the resource group")
    azure.add_argument("--location", default="", help="the region, germanywestcentral")
    azure.add_argument(
        "--job-container", default="", metavar="URL", help="the blob container for engine jobs"
    )
    azure.add_argument(
        "--environment", choices=list(ENVIRONMENTS), default="",
        help="which Azure (default: public)",
    )  # fmt: skip


def state_from(args: argparse.Namespace) -> StateStore:
    """Open the state store; without one, an empty one in memory."""
    if not args.state:
        return StateStore(MemoryFolder())
    return StateStore(open_folder(args.state, credentials_from_environment()))


def cloud_from(args: argparse.Namespace, state: StateStore, *, run: str) -> Cloud:
    """Open the cloud account that the arguments name."""
    _refuse_foreign(args)
    make = cast("Callable[..., Cloud]", cloud_class(args.cloud))
    if args.cloud == "azure":
        azure = _azure_settings(args)
        return make(azure, worker_credential(azure), state.ledger, run)
    if args.cloud == "gcp":
        gcp = _gcp_settings(args)
        return make(gcp, credentials_from_worker(gcp), state.ledger, run)
    return make(_aws_settings(args), boto3.Session(region_name=args.region), state.ledger, run)


def grant_at(args: argparse.Namespace, action: str) -> str:
    """Return where a missing action has to be granted."""
    if args.cloud == "azure":
        return azure_grant(_azure_settings(args), action)
    if args.cloud == "gcp":
        return gcp_grant(_gcp_settings(args), action)
    return aws_grant(action)


def _refuse_foreign(args: argparse.Namespace) -> None:
    foreign = [
        f"--{name.replace('_', '-')}"
        for name, clouds in _MEANT_BY.items()
        if args.cloud not in clouds and getattr(args, name)
    ]
    if foreign:
        raise InputError(
            f"Bad arguments: found {', '.join(foreign)}, which mean nothing at {args.cloud}."
        )


def _aws_settings(args: argparse.Namespace) -> AwsSettings:
    return AwsSettings(
        region=args.region,
        availability_zone=args.zone,
        bucket=args.bucket,
        subnet_id=args.subnet,
        site=args.site,
        endpoint_url=args.endpoint_url,
    )


def _azure_settings(args: argparse.Namespace) -> AzureSettings:
    return AzureSettings(
        subscription_id=args.subscription,
        resource_group=args.resource_group,
        location=args.location,
        zone=args.zone,
        environment=args.environment or "public",
        job_container_url=args.job_container,
        subnet_id=args.subnet,
        site=args.site,
        endpoint_url=args.endpoint_url,
    )


def _gcp_settings(args: argparse.Namespace) -> GcpSettings:
    return GcpSettings(
        project=args.project,
        region=args.region,
        zone=args.zone,
        bucket=args.bucket,
        subnet=args.subnet,
        site=args.site,
        prefix=args.prefix or DEFAULT_PREFIX,
        endpoint_url=args.endpoint_url,
    )
