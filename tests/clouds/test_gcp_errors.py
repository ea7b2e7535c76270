"""What Google's clients raise becomes the error by which the rest of this project decides."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError
from google.protobuf.json_format import ParseError

from imageport.clouds.gcp.clients import answer_of, in_googles_shape
from imageport.clouds.gcp.error_mapping import asked, error_of, map_error
from imageport.clouds.secret_urls import hide_bodies_in_log
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)
from tests.clouds.gcp_laboratory import GcpLab

IMAGE = "projects/lab/global/images/imageport-uploaded-1"
SIGNED = "https://storage.googleapis.com/b/k?X-Goog-Expires=9&X-Goog-Signature=5ecre7"
SESSION = "https://storage.googleapis.com/upload/storage/v1/b/b/o?upload_id=5ecre7"


def answered(status: int, body: str, url: str = "https://compute.googleapis.com/x") -> Exception:
    """Return what a client raises for an answer."""
    response = requests.Response()
    response.status_code = status
    response._content = body.encode()
    response.request = requests.Request("POST", url).prepare()
    return exceptions.from_http_response(response)


def of_reason(status: int, reason: str, message: str = "no") -> Exception:
    listed = [{"domain": "global", "reason": reason, "message": message}]
    document = {"error": {"code": status, "message": message, "errors": listed}}
    return answered(status, json.dumps(document))


def of_details(status: int, name: str, reason: str, message: str = "no") -> Exception:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    document = {"error": {"code": status, "message": message, "status": name, "details": [detail]}}
    return answered(status, json.dumps(document))


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (of_reason(429, "rateLimitExceeded"), CloudThrottled),
        (of_reason(403, "rateLimitExceeded"), CloudThrottled),
        (of_reason(403, "userRateLimitExceeded"), CloudThrottled),
        (of_details(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"), CloudThrottled),
        (of_reason(403, "quotaExceeded"), CloudRefused),
        (of_reason(403, "forbidden"), PermissionMissing),
        (of_details(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"), PermissionMissing),
        (of_details(403, "PERMISSION_DENIED", "SERVICE_DISABLED"), CloudRefused),
        (of_reason(403, "accessNotConfigured"), CloudRefused),
        (of_reason(404, "notFound"), ResourceGone),
        (of_reason(410, "notFound"), ResourceGone),
        (of_reason(404, "notFound", "The specified bucket does not exist."), CloudRefused),
        (of_reason(409, "alreadyExists"), CloudRefused),
        (of_reason(412, "conditionNotMet"), CloudRefused),
        (of_reason(400, "invalid"), CloudRefused),
        (of_reason(400, "resourceNotReady"), CloudUnavailable),
        (
            of_reason(400, "invalid", 'Provided CRC32C "x" doesn\'t match calculated CRC32C'),
            CloudUnavailable,
        ),
        (of_reason(401, "authError"), CloudRefused),
        (of_reason(408, "requestTimeout"), CloudUnavailable),
        (of_reason(500, "backendError"), CloudUnavailable),
        (answered(503, ""), CloudUnavailable),
        (answered(502, "<html>Bad Gateway</html>"), CloudUnavailable),
        (answered(404, "<html>proxy</html>"), CloudUnavailable),
        (answered(403, "<Error><Code>AccessDenied</Code></Error>"), CloudRefused),
        (requests.ConnectionError("reset"), CloudUnavailable),
        (requests.Timeout("late"), CloudUnavailable),
        (requests.JSONDecodeError("no JSON", "<", 0), CloudUnavailable),
        (ParseError("no message"), CloudUnavailable),
        (TransportError("no route"), CloudUnavailable),
        (RefreshError("('invalid_grant: Invalid JWT Signature.', {})"), CloudRefused),
        (RefreshError("unavailable", {}, retryable=True), CloudUnavailable),
        (RefreshError("('Unable to acquire impersonated credentials', '503')"), CloudUnavailable),
        (requests.exceptions.SSLError("certificate verify failed"), CloudRefused),
    ],
)
def test_each_failure_has_its_class(raised: Exception, kind: type[CloudError]):
    error = map_error(raised, "compute.images.insert", IMAGE)
    assert type(error) is kind
    assert error.message.startswith("Cannot insert image 'imageport-uploaded-1': ")


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (
            RefreshError("invalid_grant: Bad JWT", {"error": "invalid_grant"}),
            "invalid_grant: Bad JWT",
        ),
        (
            RefreshError("Unable to acquire credentials", "HTTP 403"),
            "Unable to acquire credentials; HTTP 403",
        ),
    ],
)
def test_a_refused_login_is_told_as_a_sentence(raised: Exception, cause: str):
    error = map_error(raised, "compute.images.insert", IMAGE)
    assert error.message == f"Cannot insert image 'imageport-uploaded-1': {cause}"


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", CloudUnavailable, "zone"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", CloudUnavailable, "zone"),
        ("QUOTA_EXCEEDED", CloudRefused, "quota"),
        ("RESOURCE_NOT_READY", CloudUnavailable, ""),
        ("INTERNAL_ERROR", CloudUnavailable, ""),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", CloudThrottled, ""),
        ("RESOURCE_NOT_FOUND", ResourceGone, ""),
        ("INVALID_IMAGE_FILE", CloudRefused, "stream"),
        ("PERMISSIONS_ERROR", PermissionMissing, ""),
        ("SOMETHING_NEW", CloudRefused, ""),
    ],
)
def test_an_operation_that_failed_says_what_to_do(code: str, kind: type[CloudError], advice: str):
    error = error_of(code, "Google's sentence.", 0, "compute.images.insert", IMAGE)
    assert type(error) is kind
    assert advice in error.hint
    assert error.fields["gcp_code"] == code


@pytest.mark.parametrize(
    ("text", "permission"),
    [
        ("Required 'compute.images.create' permission for 'x'", "compute.images.create"),
        (
            "a@b does not have storage.objects.create access to the Google Cloud Storage object.",
            "storage.objects.create",
        ),
        ("Permission 'iam.serviceAccounts.signBlob' denied", "iam.serviceAccounts.signBlob"),
        ("No.", "compute.images.insert"),
    ],
)
def test_a_denial_names_the_permission_that_google_names(text: str, permission: str):
    error = map_error(of_reason(403, "forbidden", text), "compute.images.insert", IMAGE)
    assert error.fields["action"] == permission
    assert f"the credentials lack {permission}." in error.message
    assert (text in error.message) is (text == "No.")


@pytest.mark.parametrize(
    "raised",
    [
        of_reason(412, "conditionNotMet", "Constraint constraints/compute.requireX violated"),
        of_reason(403, "forbidden", "Request is prohibited by organization's policy. "
                  "vpcServiceControlsUniqueIdentifier: 5f3"),
        of_reason(403, "vpcServiceControls", "Request is prohibited by organization's policy."),
    ],
)  # fmt: skip
def test_a_policy_of_the_organization_is_neither_a_missing_permission_nor_a_change(
    raised: Exception,
):
    error = map_error(raised, "compute.instances.create", IMAGE)
    assert type(error) is CloudRefused
    assert "policy of the organization" in error.hint


@pytest.mark.parametrize(
    "raised",
    [
        answered(503, "", SESSION),
        of_reason(400, "invalid", f"bad source '{SIGNED}' here"),
        requests.ConnectionError(f"Max retries exceeded with url: {SIGNED}"),
        requests.exceptions.ProxyError("proxy http://worker:5ecre7@proxy:3128 failed"),
        TransportError(OSError(SIGNED)),
        RefreshError("No access token or invalid expiration", '{"accessToken": "5ecre7"}'),
        RefreshError("No access token in response.", {"id_token": "5ecre7", "token_type": "x"}),
        RefreshError(json.dumps({"refresh_token": "5ecre7", "scope": "x"})),
        RefreshError("Unable", repr(b'{"access_token":"5ecre7"}')),
    ],
)
def test_no_signed_url_and_no_session_survives_in_an_error_or_its_traceback(raised: Exception):
    with pytest.raises(CloudError) as caught, asked("storage.objects.get", SIGNED):
        raise raised
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    assert "5ecre7" not in f"{error!s}{error!r}{error.as_dict()}{printed}"


@pytest.mark.timeout(120)  # one by one its question marks would take minutes
def test_a_long_page_is_looked_through_at_once():
    with pytest.raises(CloudUnavailable), asked("storage.objects.get", "t/a"):
        raise requests.ConnectionError("?" * 100_000)


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (503, '{"error": "no upstream"}', CloudUnavailable, "no upstream"),
        (503, '{"error": {"errors": {"a": 1}}}', CloudUnavailable, "errors"),
        (403, '{"error": {"details": "blocked"}}', PermissionMissing, "blocked"),
        (500, '["broken"]', CloudUnavailable, "broken"),
        (500, '{"message": "broken"}', CloudUnavailable, "broken"),
    ],
)
def test_what_a_gateway_says_in_json_of_its_own_is_an_error_like_any_other(
    status: int, body: str, kind: type[CloudError], told: str
):
    response = requests.Response()
    response.status_code, response._content = status, body.encode()
    response.request = requests.Request("GET", "https://x/").prepare()
    in_googles_shape(response)
    with pytest.raises(kind, match=told), asked("storage.objects.get", "t/a"):
        answer_of(response)


def test_what_google_says_is_left_as_it_is(gcp_lab: GcpLab):
    assert in_googles_shape in gcp_lab.clients.session.hooks["response"]
    found = of_details(403, "PERMISSION_DENIED", "SERVICE_DISABLED", "Enable it.")
    for raised in (found, answered(404, "No such object: b/t/a"), answered(502, "<html>")):
        response: Any = raised.response  # type: ignore[attr-defined]
        before = response.content
        in_googles_shape(response)
        assert response.content == before


def test_a_harmless_cause_is_kept_for_who_looks_for_it():
    with pytest.raises(CloudUnavailable) as caught, asked("compute.images.get", IMAGE):
        raise requests.ConnectionError("no route")
    assert isinstance(caught.value.__cause__, requests.ConnectionError)


def test_the_debug_log_of_a_compute_client_shows_no_body(caplog: pytest.LogCaptureFixture):
    logger = logging.getLogger("imageport-test-transport")
    hide_bodies_in_log(logger)
    hide_bodies_in_log(logger)
    secret: dict[str, Any] = {"httpRequest": {"payload": SIGNED}, "rpcName": "Insert"}
    with caplog.at_level(logging.DEBUG, logger.name):
        logger.debug("Sending request", extra=secret)
    (record,) = caplog.records
    assert "5ecre7" not in repr(vars(record))
    assert vars(record)["rpcName"] == "Insert"
