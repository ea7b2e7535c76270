# References: Amazon EC2 API Reference: CreateVolume ("Size"), CreateTags, DescribeSubnets; EBS
# direct APIs: StartSnapshot; Amazon S3 API Reference: GetBucketLocation; AWS KMS: DescribeKey.
"""What about the place would stop an image: looked at before anything is created."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from imageport.cloud import PlaceProblem
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.machine_types import check_quota, check_types
from imageport.clouds.aws.network import describe_subnet
from imageport.clouds.place_checks import PlaceCheck, problems_of
from imageport.errors import CloudRefused, PermissionMissing, ResourceGone
from imageport.model import GIB

MAX_VOLUME_GIB = 65536
"""Of a gp3 volume since autumn 2025 (CreateVolume; 16384 before), and of StartSnapshot."""
MAX_TAG_CHARACTERS = 256
"""Of a tag's value ("Tag restrictions"): site and run are tags, and so is the image's name."""
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""The site is a part of object keys: no slash, nothing that a URL would encode."""
BUCKET_HINT = "Name a bucket in the region of the AWS target; the engine's jobs go through it."


def check_place(account: Account, image: str, size_bytes: int) -> list[PlaceProblem]:
    """Return every problem at once.

    Raises:
        CloudUnavailable: AWS did not answer, so nothing can be said.
    """
    account.settings.require("subnet_id", "bucket")
    checks: tuple[PlaceCheck, ...] = (
        lambda: _names(account, image),
        lambda: _size(image, size_bytes),
        lambda: _network(account),
        lambda: check_types(account, _zone(account)),
        lambda: check_quota(account),
        lambda: _bucket(account),
        lambda: _key(account),
    )
    return problems_of(checks)


def _names(account: Account, image: str) -> Iterator[PlaceProblem]:
    site = account.settings.site
    for subject, name in ((f"name of '{image[:40]}'", image), ("site", site)):
        if len(name) > MAX_TAG_CHARACTERS:
            needed = f"at most {MAX_TAG_CHARACTERS}: it becomes a tag"
            yield PlaceProblem(subject, f"{len(name)} characters", needed)
    if site and not SITE_NAME.fullmatch(site):
        yield PlaceProblem("site", f"'{site}'", "letters, digits, '.', '_' and '-'")


def _size(image: str, size_bytes: int) -> Iterator[PlaceProblem]:
    gib = -(-size_bytes // GIB)
    if gib > MAX_VOLUME_GIB:
        yield PlaceProblem(
            f"size of '{image}'", f"{gib} GiB", f"at most {MAX_VOLUME_GIB} GiB (gp3 volume)"
        )


def _subnet(account: Account) -> dict[str, Any] | None:
    try:
        return describe_subnet(account, account.settings.subnet_id)
    except (ResourceGone, CloudRefused) as error:
        if not str(error.fields.get("aws_code", "")).startswith("InvalidSubnet"):
            raise
        return None


def _network(account: Account) -> Iterator[PlaceProblem]:
    settings = account.settings
    subnet = _subnet(account)
    if subnet is None:
        yield PlaceProblem(
            "subnet_id", f"no '{settings.subnet_id}'", f"a subnet of '{settings.region}'"
        )
        return
    zone = subnet["AvailabilityZone"]
    named = settings.availability_zone
    if named not in {"", zone}:
        # A volume and the machine that it is attached to are always in one zone.
        yield PlaceProblem("availability_zone", f"'{named}'", f"'{zone}', the zone of the subnet")
    if int(subnet.get("AvailableIpAddressCount", 1)) < 1:
        yield PlaceProblem("subnet_id", "no free address", "one for each machine")
    yield from _groups(account, str(subnet["VpcId"]))


def _groups(account: Account, vpc_id: str) -> Iterator[PlaceProblem]:
    settings = account.settings
    for setting in ("engine_security_group_id", "isolated_security_group_id"):
        group_id = getattr(settings, setting)
        if not group_id:
            continue
        try:
            with asked("ec2:DescribeSecurityGroups", group_id):
                answer = account.clients.ec2.describe_security_groups(GroupIds=[group_id])
        except (ResourceGone, CloudRefused) as error:
            if not str(error.fields.get("aws_code", "")).startswith("InvalidGroup"):
                raise
            yield PlaceProblem(setting, f"no '{group_id}'", f"a security group of '{vpc_id}'")
            continue
        group = answer["SecurityGroups"][0]
        if group["VpcId"] != vpc_id:
            yield PlaceProblem(setting, f"'{group_id}' in '{group['VpcId']}'", f"one in '{vpc_id}'")
        elif setting == "isolated_security_group_id":
            yield from _ways(dict(group))


def _ways(group: dict[str, Any]) -> Iterator[PlaceProblem]:
    """A group of the operator's may let out what it names, but never let anybody in."""
    if group["IpPermissions"]:
        yield PlaceProblem(
            "isolated_security_group_id",
            f"{len(group['IpPermissions'])} rules that let others in",
            "none",
            "The image boots once without its updates: nobody may reach it.",
        )


def _zone(account: Account) -> str:
    """Return the zone that machines come to: the subnet's, else the settings'."""
    try:
        subnet = _subnet(account)
    except PermissionMissing:
        subnet = None
    return str(subnet["AvailabilityZone"]) if subnet else account.settings.availability_zone


def _bucket(account: Account) -> Iterator[PlaceProblem]:
    bucket, region = account.settings.bucket, account.settings.region
    try:
        with asked("s3:GetBucketLocation", bucket):
            answer: Any = account.clients.s3.get_bucket_location(Bucket=bucket)
    except (ResourceGone, CloudRefused) as error:
        if error.fields.get("aws_code") not in {"NoSuchBucket", "404"}:
            raise
        yield PlaceProblem("bucket", f"no '{bucket}'", f"a bucket in '{region}'", BUCKET_HINT)
        return
    # S3 has two names of its own: nothing for us-east-1, EU for eu-west-1.
    named = str(answer.get("LocationConstraint") or "us-east-1")
    place = "eu-west-1" if named == "EU" else named
    if place != region:
        yield PlaceProblem("bucket", f"'{bucket}' in '{place}'", f"one in '{region}'", BUCKET_HINT)


def _key(account: Account) -> Iterator[PlaceProblem]:
    key_id = account.settings.kms_key_id
    if not key_id:
        return
    try:
        with asked("kms:DescribeKey", key_id):
            answer = account.clients.kms.describe_key(KeyId=key_id)
    except (ResourceGone, CloudRefused) as error:
        if error.fields.get("aws_code") not in {"NotFoundException", "InvalidArnException"}:
            raise
        yield PlaceProblem("kms_key_id", f"no '{key_id}'", f"a key in '{account.settings.region}'")
        return
    facts = answer["KeyMetadata"]
    spec = str(facts.get("KeySpec", "SYMMETRIC_DEFAULT"))
    if facts.get("KeyState") != "Enabled":
        yield PlaceProblem("kms_key_id", f"state {facts.get('KeyState')}", "Enabled")
    if spec != "SYMMETRIC_DEFAULT":
        yield PlaceProblem("kms_key_id", f"a key of kind {spec}", "a symmetric key")
