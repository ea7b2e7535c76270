"""What AWS answers becomes one error of the tree, with the right advice and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from imageport.clouds.aws.error_mapping import asked, map_error
from imageport.clouds.aws.settings import AwsSettings
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)

SECRET = "X-Amz-Signature=5ecre7"


def answer(code: str, status: int = 400, text: str = "no") -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": text},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "AnyOperation")


ANSWERS: list[tuple[str, int, type[CloudError]]] = [
    ("RequestThrottledException", 400, CloudThrottled),
    ("ThrottlingException", 400, CloudThrottled),
    ("RequestLimitExceeded", 503, CloudThrottled),
    ("SlowDown", 503, CloudThrottled),
    ("AnythingElse", 429, CloudThrottled),
    ("InternalServerException", 500, CloudUnavailable),
    ("ServiceUnavailable", 503, CloudUnavailable),
    ("InsufficientInstanceCapacity", 400, CloudUnavailable),
    ("AccessDeniedException", 403, PermissionMissing),
    ("UnauthorizedOperation", 403, PermissionMissing),
    ("AccessDenied", 403, PermissionMissing),
    ("ResourceNotFoundException", 404, ResourceGone),
    ("InvalidSnapshot.NotFound", 400, ResourceGone),
    ("InvalidVolume.NotFound", 400, ResourceGone),
    ("InvalidInstanceID.NotFound", 400, ResourceGone),
    ("InvalidAMIID.Unavailable", 400, ResourceGone),
    ("NoSuchKey", 404, ResourceGone),
    ("NoSuchBucket", 404, CloudRefused),
    ("ValidationException", 400, CloudRefused),
    ("ConflictException", 409, CloudRefused),
    ("SnapshotLimitExceeded", 400, CloudRefused),
    ("ExpiredToken", 400, CloudRefused),
    ("InvalidClientTokenId", 403, CloudRefused),
]


@pytest.mark.parametrize(("code", "status", "kind"), ANSWERS)
def test_each_answer_of_aws_has_its_error(code: str, status: int, kind: type[CloudError]):
    error = map_error(answer(code, status), "ebs:PutSnapshotBlock", "snap-1/7")
    assert type(error) is kind
    assert error.fields["aws_code"] == code
    if kind is not PermissionMissing:
        assert error.message.startswith("Cannot put snapshot block 'snap-1/7': ")
        assert code in error.message


def test_a_body_cut_short_by_a_slow_link_may_be_sent_again():
    error = map_error(
        answer("ValidationException", text="Failed to read block data"), "ebs:PutSnapshotBlock", "s"
    )
    assert isinstance(error, CloudUnavailable)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (EndpointConnectionError(endpoint_url="https://ebs"), CloudUnavailable),
        (ConnectTimeoutError(endpoint_url="https://ebs"), CloudUnavailable),
        (ReadTimeoutError(endpoint_url="https://ebs"), CloudUnavailable),
        (SSLError(endpoint_url="https://ebs", error="self-signed"), CloudRefused),
        (NoCredentialsError(), CloudRefused),
    ],
)
def test_a_network_failure_is_retryable_and_a_wrong_set_up_is_not(
    raised: Exception, kind: type[CloudError]
):
    with pytest.raises(CloudError) as caught, asked("ec2:DescribeVolumes", "vol-1"):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.retryable is (kind is CloudUnavailable)


def test_a_denial_names_the_action_that_aws_names():
    text = (
        "User: arn:aws:iam::1:user/x is not authorized to perform: ec2:CreateTags on resource: y. "
        "Encoded authorization failure message: 5ecre7-5ecre7"
    )
    error = map_error(answer("UnauthorizedOperation", 403, text), "ec2:RunInstances", "ami-1")
    assert error.fields["action"] == "ec2:CreateTags"
    assert "ec2:CreateTags" in error.message
    assert "5ecre7" not in str(error)


def test_a_quota_says_where_to_raise_it():
    error = map_error(answer("VolumeLimitExceeded"), "ec2:CreateVolume", "snap-1")
    assert "Service Quotas" in error.hint


def test_no_proxy_password_survives_in_an_error_or_in_the_settings():
    proxy = "http://worker:5ecre7@proxy:3128"
    error = map_error(EndpointConnectionError(endpoint_url=proxy), "s3:GetObject", "x")
    assert "5ecre7" not in str(error)
    assert "5ecre7" not in repr(AwsSettings(region="eu-central-1", proxy=proxy))


@pytest.mark.parametrize(
    "raised",
    [
        answer("ValidationException", text=f"bad https://b.s3/k?{SECRET}&x=1 here"),
        EndpointConnectionError(endpoint_url=f"https://b.s3/k?{SECRET}"),
        ReadTimeoutError(endpoint_url=f"https://b.s3/k?{SECRET}"),
    ],
)
def test_no_signed_url_survives_in_an_error(raised: Any):
    error = map_error(raised, "s3:GetObject", "imageport/x")
    assert "5ecre7" not in f"{error!s}{error!r}{error.as_dict()}"
    assert "https://b.s3/k?…" in error.message
