# References: AWS Service Authorization Reference: Amazon EC2, Amazon EBS, Amazon S3 (which
# resources and condition keys an action is checked with); EC2 User Guide, "Grant permission to tag
# resources during creation".
"""What IAM is asked for a request: actions, the resources they touch, and their tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from imageport.sandbox.aws.call_record import Scope
from imageport.sandbox.aws.emulator import ACCOUNT
from imageport.sandbox.aws.iam_policy import Check, check

_S3_BUCKET = {
    "GET": "s3:ListBucket",
    "HEAD": "s3:ListBucket",
    "PUT": "s3:CreateBucket",
    "DELETE": "s3:DeleteBucket",
    "POST": "s3:DeleteObject",
}
"""POST to a bucket is DeleteObjects here."""
_S3_OBJECT = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}
_TARGET = re.compile(r"[A-Za-z0-9_]+\.([A-Za-z]+)")
_TARGET_SERVICES = {"servicequotas", "kms"}

Tags = Mapping[str, str]
TagsOf = Callable[[str], Tags]
"""Resource id → its tags; none for what does not exist."""

_PREFIXES = {
    "i-": "instance",
    "vol-": "volume",
    "snap-": "snapshot",
    "ami-": "image",
    "sg-": "security-group",
    "subnet-": "subnet",
    "vpc-": "vpc",
}
_PUBLIC = {"snapshot", "image"}
"""Kinds whose ARN has no account in it."""
_CREATES = {
    "RunInstances": ("instance", "volume"),
    "CreateVolume": ("volume",),
    "CreateSnapshot": ("snapshot",),
    "RegisterImage": ("image",),
    "CreateSecurityGroup": ("security-group",),
}
"""What a call makes and tags; the checks on it see the tags of the request."""
_NAMES = (
    "VolumeId", "InstanceId", "SnapshotId", "ImageId", "GroupId", "SubnetId", "VpcId",
    "ResourceId",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the account, as far as IAM looks at it."""

    scope: Scope
    checks: tuple[Check, ...]
    dry_run: bool = False

    @property
    def actions(self) -> tuple[str, ...]:
        """Return every action that IAM checks; creating something with tags is two."""
        return tuple(dict.fromkeys(item.action for item in self.checks))


def read_request(environ: Mapping[str, Any], scope: Scope, body: bytes, tags_of: TagsOf) -> Request:
    """Tell what a request to any service but EBS direct asks for."""
    region, service = scope.region, scope.service
    if service == "ec2":
        form = parse_qs(body.decode(errors="replace"))
        checks = ec2_checks(form, region, tags_of)
        return Request(scope, tuple(checks), form.get("DryRun", [""])[0] == "true")
    if service == "sts":
        action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        return Request(scope, (check(f"sts:{action}", "*", {}),))
    if service in _TARGET_SERVICES:
        target = _TARGET.fullmatch(environ.get("HTTP_X_AMZ_TARGET", ""))
        action = target[1] if target else ""
        return Request(scope, (check(f"{service}:{action}", "*", {"aws:RequestedRegion": region}),))
    if service == "s3":
        return Request(scope, tuple(s3_checks(_s3_action(environ), environ)))
    return Request(scope, ())


def ec2_checks(form: Mapping[str, list[str]], region: str, tags_of: TagsOf) -> list[Check]:
    """Return the checks of one EC2 request."""
    action = form.get("Action", [""])[0]
    named = sorted({value for name, value in _values(form) if _is_id(name)})
    base = {"aws:RequestedRegion": region}
    if action.startswith(("Describe", "GetEbs")):
        return [check(f"ec2:{action}", "*", base)]
    if action == "CreateTags":
        given = _request_tags(_tags(form, "Tag."))
        return [
            check("ec2:CreateTags", arn(item, region), base | given | _own(tags_of(item)))
            for item in named
        ]
    checks = [
        check(f"ec2:{action}", arn(item, region), base | _own(tags_of(item))) for item in named
    ]
    for kind in _CREATES.get(action, ()):
        given = _request_tags(_specified(form, kind))
        where = new_arn(kind, region)
        checks.append(check(f"ec2:{action}", where, base | given))
        if given:
            by = {"ec2:CreateAction": action}
            checks.append(check("ec2:CreateTags", where, base | given | by))
    if action == "RunInstances":
        checks.append(check("ec2:RunInstances", new_arn("network-interface", region), base))
    return checks or [check(f"ec2:{action}", "*", base)]


def block_checks(action: str, region: str, snapshot_id: str, given: Tags, own: Tags) -> list[Check]:
    """Return the checks of one EBS direct request; ``given`` are the tags of StartSnapshot."""
    base = {"aws:RequestedRegion": region}
    if action != "ebs:StartSnapshot":
        return [check(action, arn(snapshot_id, region), base | _own(own))]
    where = new_arn("snapshot", region)
    asked = base | _request_tags(given)
    # Which ec2:CreateAction this has is not documented, so it has none here.
    tagging = [check("ec2:CreateTags", where, asked)] if given else []
    return [check(action, where, asked), *tagging]


def s3_checks(action: str, environ: Mapping[str, Any]) -> list[Check]:
    """Return the checks of one path-style S3 request."""
    bucket, _, key = unquote(environ["PATH_INFO"]).strip("/").partition("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    prefix = {"s3:prefix": query["prefix"][0]} if "prefix" in query else {}
    return [check(action, f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else ""), prefix)]


def arn(resource_id: str, region: str) -> str:
    """Return the ARN of an EC2 resource by its id."""
    kinds = [kind for prefix, kind in _PREFIXES.items() if resource_id.startswith(prefix)]
    kind = kinds[0] if kinds else "unknown"
    account = "" if kind in _PUBLIC else ACCOUNT
    return f"arn:aws:ec2:{region}:{account}:{kind}/{resource_id}"


def new_arn(kind: str, region: str) -> str:
    """Return the ARN of something that is not there yet."""
    account = "" if kind in _PUBLIC else ACCOUNT
    return f"arn:aws:ec2:{region}:{account}:{kind}/new"


def _is_id(name: str) -> bool:
    last = [part for part in name.split(".") if not part.isdigit()][-1]
    return last in _NAMES or last == "SecurityGroupId"


def _values(form: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    for name, values in form.items():
        if not name.startswith(("TagSpecification", "Filter", "Tag.")):
            for value in values:
                yield name, value


def _tags(form: Mapping[str, list[str]], prefix: str) -> dict[str, str]:
    keys = {
        name.removesuffix(".Key"): values[0]
        for name, values in form.items()
        if name.startswith(prefix) and name.endswith(".Key")
    }
    return {key: form.get(f"{name}.Value", [""])[0] for name, key in keys.items()}


def _specified(form: Mapping[str, list[str]], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, values in form.items():
        if name.startswith("TagSpecification.") and values[0] == kind:
            found |= _tags(form, name.removesuffix("ResourceType"))
    return found


def _request_tags(tags: Tags) -> dict[str, str]:
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def _own(tags: Tags) -> dict[str, str]:
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def _s3_action(environ: Mapping[str, Any]) -> str:
    _, _, key = unquote(environ["PATH_INFO"]).strip("/").partition("/")
    method = environ["REQUEST_METHOD"]
    if key:
        return _S3_OBJECT.get(method, f"s3:{method}")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if method == "GET" and "location" in query:
        return "s3:GetBucketLocation"
    return _S3_BUCKET.get(method, f"s3:{method}")
