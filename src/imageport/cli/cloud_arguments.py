"""The arguments that name a cloud account and a state store, for doctor, sweep and images.

Credentials are never arguments: AWS's own chain (environment, profile, instance role) finds them.
"""

from __future__ import annotations

import argparse

import boto3

from imageport.cloud import Cloud
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.registry import CLOUDS
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder

REAL_CLOUDS = sorted(name for name in CLOUDS if name != "memory")


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
    parser.add_argument("--region", default="", help="the cloud's region")
    parser.add_argument("--zone", default="", help="the availability zone")
    parser.add_argument("--bucket", default="", help="the bucket for engine jobs")
    parser.add_argument("--subnet", default="", help="the subnet for engine and boot machines")
    parser.add_argument("--endpoint-url", default="", help="another endpoint (embedded site)")


def state_from(args: argparse.Namespace) -> StateStore:
    """Open the state store; without one, an empty one in memory."""
    if not args.state:
        return StateStore(MemoryFolder())
    return StateStore(open_folder(args.state, credentials_from_environment()))


def cloud_from(args: argparse.Namespace, state: StateStore, *, run: str) -> Cloud:
    """Open the cloud account that the arguments name."""
    settings = AwsSettings(
        region=args.region,
        availability_zone=args.zone,
        bucket=args.bucket,
        subnet_id=args.subnet,
        site=args.site,
        endpoint_url=args.endpoint_url,
    )
    return AwsCloud(settings, boto3.Session(region_name=args.region), state.ledger, run)
