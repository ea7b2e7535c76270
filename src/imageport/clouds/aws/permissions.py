# References: Amazon EC2 API Reference, "DryRun"; Amazon EBS direct APIs, "Errors".
"""The self-test: asks for every action of a run in a way that can change nothing.

EC2 answers a dry run with ``DryRunOperation`` or ``UnauthorizedOperation``. The EBS direct APIs and
S3 have no dry run: there the request names a snapshot that does not exist, or carries a checksum
that is wrong, so that AWS refuses it after the permission was checked. Only a denial is a gap; a
refusal for any other reason says that the action is allowed or that AWS looked no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from imageport.cloud import PermissionGap
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.machine_types import STANDARD_QUOTA
from imageport.clouds.job_names import ROOT
from imageport.clouds.tags import TAG_SITE
from imageport.errors import CloudError, CloudRefused, PermissionMissing
from imageport.model import BLOCK_BYTES, ZERO_BLOCK

PREFLIGHT = "preflight"
NOWHERE = "00000000000000000"
SNAPSHOT, VOLUME = f"snap-{NOWHERE}", f"vol-{NOWHERE}"
INSTANCE, IMAGE, GROUP = f"i-{NOWHERE}", f"ami-{NOWHERE}", f"sg-{NOWHERE}"
WRONG_SHA256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass(frozen=True, slots=True)
class Probe:
    """One action, what a run needs it for, and the harmless request."""

    action: str
    needed_for: str
    call: Callable[[], object]


def check_permissions(account: Account) -> list[PermissionGap]:
    """Return the actions that are denied; empty when none is.

    Raises:
        CloudRefused: the credentials themselves are refused, so nothing can be said.
    """
    with asked("sts:GetCallerIdentity", "credentials"):
        account.clients.sts.get_caller_identity()
    gaps: dict[str, PermissionGap] = {}
    for probe in probes(account):
        for gap in _try(probe):
            # Several requests need ec2:CreateTags; one line says so.
            gaps.setdefault(gap.action, gap)
    return list(gaps.values())


def probes(account: Account) -> Iterator[Probe]:
    """Yield every action that this product ever asks for."""
    yield from _block_probes(account)
    yield from _disk_probes(account)
    yield from _machine_probes(account)
    yield from _network_probes(account)
    yield from _preflight_probes(account)
    if account.settings.bucket:
        yield from _bucket_probes(account)


def _try(probe: Probe) -> Iterator[PermissionGap]:
    try:
        with asked(probe.action, "permission test"):
            probe.call()
    except PermissionMissing as error:
        # AWS may name another action than the one called: CreateTags inside RunInstances.
        action = str(error.fields.get("action", probe.action))
        optional = probe.needed_for == PREFLIGHT
        yield PermissionGap(action, probe.needed_for, "denied", optional=optional)
    except CloudRefused as error:
        if error.hint and error.fields.get("aws_code", "").startswith(("Auth", "Expired")):
            raise
    except CloudError:
        # Gone, throttled or failing: no denial.
        return


def _block_probes(account: Account) -> Iterator[Probe]:
    ebs: Any = account.clients.ebs
    nowhere = {"SnapshotId": SNAPSHOT}
    # Parent and Encrypted exclude each other, so this never starts a snapshot.
    tags = [{"Key": TAG_SITE, "Value": account.settings.site or "site"}]
    start = {
        "VolumeSize": 1, "ParentSnapshotId": SNAPSHOT, "Encrypted": True, "Tags": tags,
    }  # fmt: skip
    block = {
        "BlockIndex": 0,
        "BlockData": ZERO_BLOCK,
        "DataLength": BLOCK_BYTES,
        "Checksum": WRONG_SHA256,
        "ChecksumAlgorithm": "SHA256",
    }
    complete = {"ChangedBlocksCount": 1}
    token = {"BlockIndex": 0, "BlockToken": "AAAA"}
    for action, needed_for, call, arguments in (
        ("ebs:StartSnapshot", "upload", ebs.start_snapshot, start),
        ("ebs:PutSnapshotBlock", "upload", ebs.put_snapshot_block, nowhere | block),
        ("ebs:CompleteSnapshot", "upload", ebs.complete_snapshot, nowhere | complete),
        ("ebs:ListSnapshotBlocks", "verify, publish", ebs.list_snapshot_blocks, nowhere),
        ("ebs:GetSnapshotBlock", "verify, publish", ebs.get_snapshot_block, nowhere | token),
    ):
        yield Probe(action, needed_for, _bound(call, arguments))


def _disk_probes(account: Account) -> Iterator[Probe]:
    ec2: Any = account.clients.ec2
    zone = account.settings.availability_zone or f"{account.settings.region}a"
    make = {"AvailabilityZone": zone, "Size": 1, "VolumeType": "gp3"}
    attach = {"VolumeId": VOLUME, "InstanceId": INSTANCE, "Device": "/dev/sdf"}
    for operation, needed_for, arguments in (
        ("DescribeSnapshots", "upload, sweep", {}),
        ("DescribeVolumes", "prepare, sweep", {}),
        ("GetEbsEncryptionByDefault", "upload", {}),
        ("CreateTags", "every stage", {"Resources": [SNAPSHOT], "Tags": [_tag("probe")]}),
        ("CreateVolume", "prepare", make | _tagged(account, "volume")),
        ("AttachVolume", "prepare", attach),
        ("DetachVolume", "prepare", {"VolumeId": VOLUME}),
        ("CreateSnapshot", "prepare", {"VolumeId": VOLUME} | _tagged(account, "snapshot")),
        ("DeleteVolume", "clean-up", {"VolumeId": VOLUME}),
        ("DeleteSnapshot", "clean-up", {"SnapshotId": SNAPSHOT}),
    ):
        yield _dry_run(ec2, operation, needed_for, arguments)


def _machine_probes(account: Account) -> Iterator[Probe]:
    ec2: Any = account.clients.ec2
    settings = account.settings
    image = settings.engine_image_id or IMAGE
    launch = {
        "ImageId": image, "InstanceType": settings.engine_instance_type, "MinCount": 1,
        "MaxCount": 1, **({"SubnetId": settings.subnet_id} if settings.subnet_id else {}),
        **_tagged(account, "instance", "volume"),
    }  # fmt: skip
    register = {
        "Name": "imageport-permission-test", "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": SNAPSHOT}}],
        **_tagged(account, "image"),
    }  # fmt: skip
    one = {"InstanceIds": [INSTANCE]}
    for operation, needed_for, arguments in (
        ("DescribeInstances", "prepare, sweep", {}),
        ("DescribeImages", "prepare", {"Owners": ["self"]}),
        ("RegisterImage", "prepare (first boot)", register),
        ("DeregisterImage", "clean-up", {"ImageId": IMAGE}),
        ("RunInstances", "prepare", launch),
        ("StartInstances", "prepare (first boot)", one),
        ("StopInstances", "prepare (first boot)", one),
        ("TerminateInstances", "clean-up", one),
        ("GetConsoleOutput", "prepare (reports)", {"InstanceId": INSTANCE}),
        ("GetConsoleScreenshot", "prepare (reports)", {"InstanceId": INSTANCE}),
    ):
        yield _dry_run(ec2, operation, needed_for, arguments)


def _network_probes(account: Account) -> Iterator[Probe]:
    ec2: Any = account.clients.ec2
    settings = account.settings
    yield _dry_run(ec2, "DescribeSubnets", "prepare", {})
    yield _dry_run(ec2, "DescribeSecurityGroups", "prepare, sweep", {})
    if settings.engine_security_group_id and settings.isolated_security_group_id:
        return  # nothing is made, the operator named both groups
    rule = {"GroupId": GROUP, "IpPermissions": [{"IpProtocol": "-1"}]}
    create = {"GroupName": "imageport-permission-test", "Description": "permission test"}
    create |= _tagged(account, "security-group")
    for operation, needed_for, arguments in (
        ("CreateSecurityGroup", "prepare", create),
        ("RevokeSecurityGroupEgress", "prepare (first boot)", rule),
        ("DeleteSecurityGroup", "clean-up", {"GroupId": GROUP}),
    ):
        yield _dry_run(ec2, operation, needed_for, arguments)
    if settings.boot_egress_cidrs:
        yield _dry_run(ec2, "AuthorizeSecurityGroupEgress", "prepare (first boot)", rule)


def _preflight_probes(account: Account) -> Iterator[Probe]:
    """What preflight looks at; without it, it says nothing about machine types, quota or key."""
    clients: Any = account.clients
    kind = account.settings.engine_instance_type
    one = {"Filters": [{"Name": "instance-type", "Values": [kind]}]}
    # One type each: a service that knows no dry run of them would answer with a thousand.
    for operation in ("DescribeInstanceTypes", "DescribeInstanceTypeOfferings"):
        yield _dry_run(clients.ec2, operation, PREFLIGHT, one)
    quota = {"ServiceCode": "ec2", "QuotaCode": STANDARD_QUOTA}
    ask = clients.quotas.get_service_quota
    yield Probe("servicequotas:GetServiceQuota", PREFLIGHT, _bound(ask, quota))
    if account.settings.bucket:
        where = {"Bucket": account.settings.bucket}
        locate = clients.s3.get_bucket_location
        yield Probe("s3:GetBucketLocation", PREFLIGHT, _bound(locate, where))
    if account.settings.kms_key_id:
        key = {"KeyId": account.settings.kms_key_id}
        yield Probe("kms:DescribeKey", PREFLIGHT, _bound(clients.kms.describe_key, key))


def _bucket_probes(account: Account) -> Iterator[Probe]:
    s3: Any = account.clients.s3
    place = {
        "Bucket": account.settings.bucket,
        "Key": f"{ROOT}/{account.settings.site or 'site'}/permission-test",
    }
    listing = {"Bucket": place["Bucket"], "Prefix": f"{ROOT}/", "MaxKeys": 1}
    yield Probe("s3:ListBucket", "prepare, sweep", _bound(s3.list_objects_v2, listing))
    put = place | {"Body": b"permission test", "ContentMD5": WRONG_MD5}
    yield Probe("s3:PutObject", "prepare", _bound(s3.put_object, put))
    yield Probe("s3:GetObject", "prepare", _bound(s3.get_object, place))
    # Last: removes the object of a service that does not compare checksums.
    yield Probe("s3:DeleteObject", "clean-up", _bound(s3.delete_object, place))


def _dry_run(ec2: Any, operation: str, needed_for: str, arguments: dict[str, Any]) -> Probe:
    method = getattr(ec2, _snake(operation))
    return Probe(f"ec2:{operation}", needed_for, _bound(method, arguments | {"DryRun": True}))


def _bound(method: Callable[..., object], arguments: dict[str, Any]) -> Callable[[], object]:
    return lambda: method(**arguments)


def _snake(operation: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)[1:]


def _tagged(account: Account, *kinds: str) -> dict[str, Any]:
    """Return the tags that a policy may insist on, as every real request carries them."""
    tags = [{"Key": TAG_SITE, "Value": account.settings.site or "site"}]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds]}


def _tag(value: str) -> dict[str, str]:
    return {"Key": "imageport:probe", "Value": value}
