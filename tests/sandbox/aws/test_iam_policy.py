"""The emulator's idea of IAM: what a policy allows, and what a request asks of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from imageport.sandbox.aws.call_record import CallRecord, Scope, read_scope
from imageport.sandbox.aws.iam_policy import Check, check, is_allowed
from imageport.sandbox.aws.iam_requests import read_request

REGION = "eu-central-1"
VOLUME = f"arn:aws:ec2:{REGION}:123456789012:volume/vol-1"


def allows(statement: dict[str, Any], asked: Check, *more: dict[str, Any]) -> bool:
    known = {"Effect": "Allow", "Action": "ec2:DeleteVolume", "Resource": "*"}
    return is_allowed({"Statement": [known | statement, *more]}, asked)


def delete(**context: str) -> Check:
    return check("ec2:DeleteVolume", VOLUME, context)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ({}, True),
        ({"Action": "ec2:deletevolume"}, True),
        ({"Action": ["ec2:Delete*"]}, True),
        ({"Action": "ec2:CreateVolume"}, False),
        ({"Resource": f"arn:aws:ec2:{REGION}:123456789012:volume/*"}, True),
        ({"Resource": "arn:aws:ec2:us-east-1:123456789012:volume/*"}, False),
        ({"Effect": "Deny"}, False),
    ],
)
def test_action_and_resource_both_have_to_fit(statement: dict[str, Any], *, allowed: bool):
    assert allows(statement, delete()) is allowed


@pytest.mark.parametrize(
    ("operator", "value", "present", "absent"),
    [
        ("StringEquals", "a", True, False),
        ("StringEquals", ["b", "a"], True, False),
        ("StringEquals", "A", False, False),
        ("StringNotEquals", "a", False, True),
        ("StringNotEquals", "b", True, True),
        ("StringLike", "?", True, False),
        ("StringLikeIfExists", "b*", False, True),
        ("StringLikeIfExists", "a*", True, True),
        ("Null", "true", False, True),
        ("Null", "false", True, False),
        ("Bool", "A", True, False),
    ],
)
def test_conditions_know_keys_that_are_not_there(
    operator: str, value: object, *, present: bool, absent: bool
):
    condition = {"Condition": {operator: {"aws:ResourceTag/Team": value}}}
    assert allows(condition, delete(**{"AWS:resourcetag/team": "a"})) is present
    assert allows(condition, delete()) is absent


def test_a_denial_wins_and_an_unknown_operator_is_an_error():
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    assert not allows({}, delete(), deny)
    with pytest.raises(ValueError, match="DateLessThan"):
        allows({"Condition": {"DateLessThan": {"x": "1"}}}, delete(x="1"))


def asked(form: dict[str, str], tags: dict[str, dict[str, str]] | None = None) -> Any:
    known = tags or {}
    body = urlencode(form).encode()
    return read_request({}, Scope("A", REGION, "ec2"), body, lambda name: known.get(name, {}))


def test_making_something_with_tags_asks_for_the_tags_too():
    request = asked(
        {
            "Action": "CreateVolume", "SnapshotId": "snap-1",
            "TagSpecification.1.ResourceType": "volume",
            "TagSpecification.1.Tag.1.Key": "site", "TagSpecification.1.Tag.1.Value": "x",
        },
        {"snap-1": {"site": "y"}},
    )  # fmt: skip
    assert request.actions == ("ec2:CreateVolume", "ec2:CreateTags")
    source, made, tagged = request.checks
    assert source.resource == f"arn:aws:ec2:{REGION}::snapshot/snap-1"
    assert source.context["aws:resourcetag/site"] == "y"
    assert made.context["aws:requesttag/site"] == "x"
    assert tagged.context["ec2:createaction"] == "CreateVolume"


def test_a_launch_asks_for_everything_that_it_touches():
    request = asked(
        {
            "Action": "RunInstances", "ImageId": "ami-1", "DryRun": "true",
            "NetworkInterface.1.SubnetId": "subnet-1",
            "NetworkInterface.1.SecurityGroupId.1": "sg-1",
        }
    )  # fmt: skip
    kinds = {item.resource.split(":")[-1].split("/")[0] for item in request.checks}
    assert kinds == {"image", "subnet", "security-group", "instance", "volume", "network-interface"}
    assert request.actions == ("ec2:RunInstances",)
    assert request.dry_run


@pytest.mark.parametrize(
    ("method", "path", "query", "action", "resource"),
    [
        ("GET", "/b", "list-type=2&prefix=p%2F", "s3:ListBucket", "b"),
        ("HEAD", "/b", "", "s3:ListBucket", "b"),
        ("GET", "/b", "location", "s3:GetBucketLocation", "b"),
        ("PUT", "/b/k/x", "", "s3:PutObject", "b/k/x"),
        ("GET", "/b/k/x", "X-Amz-Signature=1", "s3:GetObject", "b/k/x"),
    ],
)
def test_a_request_to_s3_is_an_action_on_a_bucket_or_an_object(
    method: str, path: str, query: str, action: str, resource: str
):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    (found,) = read_request(environ, Scope("A", REGION, "s3"), b"", lambda _: {}).checks
    assert (found.action, found.resource) == (action, f"arn:aws:s3:::{resource}")
    assert found.context.get("s3:prefix", "") == ("p/" if "prefix" in query else "")


def test_the_caller_is_known_by_header_and_by_presigned_url():
    header = "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu-central-1/ec2/aws4_request, Signed"
    assert read_scope({"HTTP_AUTHORIZATION": header}) == Scope("AKIA1", REGION, "ec2")
    query = "X-Amz-Credential=AKIA2%2F20260101%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=1"
    assert read_scope({"QUERY_STRING": query}) == Scope("AKIA2", REGION, "s3")
    assert read_scope({}) == Scope()


def test_the_record_tells_what_was_asked_from_what_was_done():
    record = CallRecord()
    record.note([check("ec2:B", "*", {}), check("ec2:A", "x", {"K": "v"})], done=False)
    record.note([check("ec2:B", "*", {})], done=True)
    assert record.document() == {
        "asked": ["ec2:A", "ec2:B"],
        "done": ["ec2:B"],
        "checks": [["ec2:B", "*", {}], ["ec2:A", "x", {"k": "v"}]],
    }
    record.forget()
    assert record.document() == {"asked": [], "done": [], "checks": []}
