"""What Azure answers becomes one error of the tree, with the right advice and no secret."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.identity import CredentialUnavailableError

from imageport.clouds.azure.error_mapping import asked, gone_already, map_error
from imageport.clouds.secret_urls import hide_queries_in_logs
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
)

DISK = "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/disks/imageport-work-1"
SIGNED = "https://md-abc.blob.core.windows.net/x/abcd?sv=2018-03-28&sr=b&si=1&sig=5ecre7"


class Answer:
    """The little of an HTTP answer that the SDK's errors look at."""

    def __init__(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        self.status_code = status
        self.reason = "reason"
        self.headers = headers or {}
        self._body = body

    def text(self) -> str:
        return self._body


def arm(code: str, status: int, text: str = "no") -> HttpResponseError:
    response: Any = Answer(status, json.dumps({"error": {"code": code, "message": text}}))
    return HttpResponseError(response=response)


def storage(code: str, status: int) -> HttpResponseError:
    response: Any = Answer(status, "", {"x-ms-error-code": code})
    return HttpResponseError(response=response)


ARM_ANSWERS: list[tuple[str, int, type[CloudError]]] = [
    ("TooManyRequests", 429, CloudThrottled),
    ("SubscriptionRequestsThrottled", 429, CloudThrottled),
    ("AnythingElse", 429, CloudThrottled),
    ("InternalServerError", 500, CloudUnavailable),
    ("InternalExecutionError", 200, CloudUnavailable),
    ("ServiceUnavailable", 503, CloudUnavailable),
    ("AllocationFailed", 409, CloudUnavailable),
    ("ZonalAllocationFailed", 200, CloudUnavailable),
    ("AnotherOperationInProgress", 409, CloudUnavailable),
    ("RetryableError", 409, CloudUnavailable),
    ("AuthorizationFailed", 403, PermissionMissing),
    ("LinkedAuthorizationFailed", 403, PermissionMissing),
    ("ResourceNotFound", 404, ResourceGone),
    ("NotFound", 404, ResourceGone),
    ("ResourceGroupNotFound", 404, CloudRefused),
    ("SubscriptionNotFound", 404, CloudRefused),
    ("RequestDisallowedByPolicy", 403, CloudRefused),
    ("ScopeLocked", 409, CloudRefused),
    ("SkuNotAvailable", 409, CloudRefused),
    ("QuotaExceeded", 409, CloudRefused),
    ("OperationNotAllowed", 409, CloudRefused),
    ("Conflict", 409, CloudRefused),
    ("InvalidParameter", 400, CloudRefused),
    ("ExpiredAuthenticationToken", 401, CloudRefused),
]


@pytest.mark.parametrize(("code", "status", "kind"), ARM_ANSWERS)
def test_each_answer_of_resource_manager_has_its_error(
    code: str, status: int, kind: type[CloudError]
):
    error = map_error(arm(code, status), "Microsoft.Compute/disks/write", DISK)
    assert type(error) is kind
    assert error.fields["azure_code"] == code
    assert error.fields["status"] == status
    assert error.message.startswith("Cannot write disk 'imageport-work-1': ")
    if kind is not PermissionMissing:
        assert code in error.message


STORAGE_ANSWERS: list[tuple[str, int, type[CloudError]]] = [
    ("ServerBusy", 503, CloudThrottled),
    ("OperationTimedOut", 500, CloudThrottled),
    ("InternalError", 500, CloudUnavailable),
    ("Md5Mismatch", 400, CloudUnavailable),
    ("AuthenticationFailed", 403, CloudRefused),
    ("AuthorizationPermissionMismatch", 403, CloudRefused),
    ("BlobNotFound", 404, ResourceGone),
    ("ContainerNotFound", 404, ResourceGone),
    ("InvalidRange", 416, CloudRefused),
    ("RequestBodyTooLarge", 413, CloudRefused),
]


@pytest.mark.parametrize(("code", "status", "kind"), STORAGE_ANSWERS)
def test_each_answer_of_the_data_path_has_its_error(code: str, status: int, kind: type[CloudError]):
    error = map_error(storage(code, status), "blob:PutPage", "imageport-upload-1")
    assert type(error) is kind
    assert error.message.startswith("Cannot put page 'imageport-upload-1': ")


def test_what_a_role_does_not_allow_is_missing_and_what_a_signed_url_does_not_is_refused():
    answer = storage("AuthorizationPermissionMismatch", 403)
    action = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"
    assert isinstance(map_error(answer, action, "jobs"), PermissionMissing)
    error = map_error(answer, "blob:GetBlob", "imageport-upload-1")
    assert isinstance(error, CloudRefused)
    assert error.fields["status"] == 403


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, CloudUnavailable), (410, CloudUnavailable), (500, CloudUnavailable),
     (400, CloudRefused), (401, CloudRefused), (403, CloudRefused)],
)  # fmt: skip
def test_no_answer_about_a_token_is_taken_for_one_about_a_resource(
    status: int, kind: type[CloudError]
):
    response: Any = Answer(status)
    error = map_error(ClientAuthenticationError("no token", response=response), "a/b/read", DISK)
    assert type(error) is kind
    assert "credentials" in error.hint


@pytest.mark.parametrize(
    ("more", "kind"),
    [("", CloudUnavailable), (" Token request error: (invalid_request) no such", CloudRefused)],
)
def test_a_token_service_that_is_silent_may_answer_later(more: str, kind: type[CloudError]):
    told = "ManagedIdentityCredential: no response from the IMDS endpoint."
    error = map_error(CredentialUnavailableError(told + more), "a/b/read", DISK)
    assert type(error) is kind
    assert "credentials" in error.hint


def test_a_missing_job_container_is_the_operators_to_correct():
    action = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"
    error = map_error(storage("ContainerNotFound", 404), action, "jobs")
    assert isinstance(error, CloudRefused)
    assert "job_container_url" in error.hint


def test_an_operation_that_another_one_holds_up_may_be_tried_again():
    error = map_error(arm("Conflict", 409, "Another operation is in progress."), "a/b/c", DISK)
    assert isinstance(error, CloudUnavailable)


def test_an_answer_that_cannot_be_read_may_be_asked_for_again():
    gateway: Any = Answer(404, "<html>")
    assert isinstance(
        map_error(HttpResponseError(response=gateway), "a/b/c", DISK), CloudUnavailable
    )
    response: Any = Answer(200, "<html>")
    error = map_error(DecodeError("no JSON", response=response), "a/b/c", DISK)
    assert isinstance(error, CloudUnavailable)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ServiceRequestError("no route"), CloudUnavailable),
        (ServiceResponseError("cut"), CloudUnavailable),
        (ServiceResponseTimeoutError("slow"), CloudUnavailable),
        (ServiceRequestError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), CloudRefused),
        (ClientAuthenticationError("AADSTS7000215"), CloudRefused),
        (AzureError("odd"), CloudRefused),
    ],
)
def test_a_network_failure_is_retryable_and_a_wrong_set_up_is_not(
    raised: AzureError, kind: type[CloudError]
):
    with pytest.raises(CloudError) as caught, asked("Microsoft.Compute/disks/read", DISK):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.retryable is (kind is CloudUnavailable)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (
            (
                "The client 'c' with object id 'o' does not have authorization to perform action "
                "'Microsoft.Compute/snapshots/write' over scope '/x' or the scope is invalid."
            ),
            "Microsoft.Compute/snapshots/write",
        ),
        (
            (
                "The client has permission to perform action 'Microsoft.Compute/disks/write' on "
                "scope '/x'; however, it does not have permission to perform action(s) "
                "'Microsoft.Compute/diskEncryptionSets/read' on the linked scope(s) '/y'."
            ),
            "Microsoft.Compute/diskEncryptionSets/read",
        ),
        ("No.", "Microsoft.Compute/disks/write"),
    ],
)
def test_a_denial_names_the_action_that_azure_names(text: str, action: str):
    error = map_error(arm("AuthorizationFailed", 403, text), "Microsoft.Compute/disks/write", DISK)
    assert isinstance(error, PermissionMissing)
    assert error.fields["action"] == action
    assert f"the credentials lack {action}." in error.message


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        ("OperationNotAllowed", "exceeding approved Total Regional Cores quota", "quota"),
        ("QuotaExceeded", "no", "quota"),
        ("SkuNotAvailable", "no", "VM size"),
        ("ScopeLocked", "no", "lock"),
        ("RequestDisallowedByPolicy", "no", "Policy"),
        ("InvalidAuthenticationToken", "no", "credentials"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, text: str, advice: str):
    error = map_error(arm(code, 409, text), "Microsoft.Compute/virtualMachines/write", "vm")
    assert advice in error.hint


@pytest.mark.parametrize(
    "raised",
    [
        ServiceRequestError(f"HTTPSConnectionPool: Max retries exceeded with url: {SIGNED}"),
        ServiceRequestError("Max retries exceeded with url: /x/abcd?sv=2018-03-28&sig=5ecre7 (…)"),
        arm("InvalidParameter", 400, f"bad source '{SIGNED}' here"),
        ServiceRequestError("source https%3A%2F%2Fmd%3Fsv%3D1%26sig%3D5ecre7%26x is not there"),
        ServiceResponseError("proxy http://worker:5ecre7@proxy:3128 failed"),
    ],
)
def test_no_signed_url_and_no_password_survives_in_an_error_or_its_traceback(raised: AzureError):
    with pytest.raises(CloudError) as caught, asked("blob:PutPage", f"page of {SIGNED}"):
        raise raised
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    assert "5ecre7" not in f"{error!s}{error!r}{error.as_dict()}{printed}"


def test_a_cause_that_shows_the_url_is_cut_off_too():
    with pytest.raises(CloudError) as caught, asked("blob:PutPage", "disk"):
        raise ServiceRequestError("no answer") from OSError(SIGNED)
    assert "5ecre7" not in "".join(traceback.format_exception(caught.value))


def test_a_harmless_cause_is_kept_for_who_looks_for_it():
    with pytest.raises(CloudUnavailable) as caught, asked("Microsoft.Compute/disks/read", DISK):
        raise ServiceRequestError("no route")
    assert isinstance(caught.value.__cause__, ServiceRequestError)


def test_what_is_gone_already_is_no_error_for_who_deletes():
    with gone_already(), asked("Microsoft.Compute/disks/delete", DISK):
        raise arm("ResourceNotFound", 404)


def test_the_debug_log_of_the_http_library_shows_no_signature(caplog: pytest.LogCaptureFixture):
    hide_queries_in_logs()
    logger = logging.getLogger("urllib3.connectionpool")
    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        logger.debug('%s://%s:%s "%s %s %s" %s %s', "https", "md-abc", 443, "PUT",
                     "/x/abcd?sv=1&sig=5ecre7", "HTTP/1.1", 201, 0)  # fmt: skip
    assert "/x/abcd?…" in caplog.text
    assert "5ecre7" not in caplog.text
