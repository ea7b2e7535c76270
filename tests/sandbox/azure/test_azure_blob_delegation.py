# References: Azure Storage, "Create a user delegation SAS", Get User Delegation Key.
"""The job account: bearer tokens, delegated keys, and what URLs signed with them allow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import generate_blob_sas

from imageport.sandbox.azure import blob_access
from imageport.sandbox.azure.account import JOB_ACCOUNT, JOB_CONTAINER
from tests.sandbox.azure.azurite_faces import OwnFace, ask

BLOCK = {"x-ms-blob-type": "BlockBlob"}


@pytest.fixture
def face(tmp_path: Path) -> Iterator[OwnFace]:
    own = OwnFace(tmp_path)
    yield own
    own.close()


def signed(face: OwnFace, name: str, permission: str, **options: Any) -> str:
    """Return a URL signed with a delegated key; options go to the client's own signer."""
    until = datetime.now(UTC) + timedelta(minutes=10)
    sas = generate_blob_sas(
        JOB_ACCOUNT,
        JOB_CONTAINER,
        name,
        user_delegation_key=face.delegation_key(),
        permission=permission,
        **{"expiry": until, **options},
    )
    return f"{face.base_url}/{JOB_ACCOUNT}/{JOB_CONTAINER}/{name}?{sas}"


def code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], answer[1].get("x-ms-error-code", "")


def test_a_url_to_create_does_not_overwrite(face: OwnFace) -> None:
    url = signed(face, "report", "c")
    assert ask(url, "PUT", BLOCK, b"1")[0] == 201
    assert code(ask(url, "PUT", BLOCK, b"2")) == (403, "AuthorizationPermissionMismatch")
    assert ask(signed(face, "report", "cw"), "PUT", BLOCK, b"3")[0] == 201


def test_every_signed_field_counts(face: OwnFace) -> None:
    url = signed(face, "x", "r", start=datetime.now(UTC) - timedelta(minutes=1))
    assert code(ask(url, "GET", {})) == (404, "BlobNotFound")
    path, _, query = url.partition("?")
    for field in query.split("&"):
        name, _, value = field.partition("=")
        changed = f"{name}={value[:-1]}{'A' if value[-1] != 'A' else 'B'}"
        answer = ask(f"{path}?{query.replace(field, changed)}", "GET", {})
        assert answer[0] == 403, name


def test_a_url_is_for_one_blob(face: OwnFace) -> None:
    url = signed(face, "mine", "r")
    assert code(ask(url.replace("/mine?", "/other?"), "GET", {})) == (403, "AuthenticationFailed")


def test_a_url_begins_and_ends_on_the_servers_clock(face: OwnFace) -> None:
    now = datetime.now(UTC)
    ended = signed(face, "x", "r", expiry=now - timedelta(seconds=1))
    assert code(ask(ended, "GET", {})) == (403, "AuthenticationFailed")
    url = signed(face, "x", "r", start=now)
    assert ask(url, "GET", {})[0] == 404
    face.knobs.clock_skew_seconds = 300
    assert code(ask(url, "GET", {})) == (403, "AuthenticationFailed")


def test_a_url_ends_with_the_key_that_signed_it(face: OwnFace) -> None:
    url = signed(face, "x", "r", expiry=datetime.now(UTC) + timedelta(days=3))
    assert ask(url, "GET", {})[0] == 404
    face.knobs.clock_skew_seconds = -2 * 3600
    assert code(ask(url, "GET", {})) == (403, "AuthenticationFailed")


def test_a_url_for_https_is_not_taken_over_http(face: OwnFace) -> None:
    url = signed(face, "x", "r", protocol="https")
    assert code(ask(url, "GET", {})) == (403, "AuthorizationProtocolMismatch")


def test_a_key_lasts_seven_days_at_most(face: OwnFace) -> None:
    now = datetime.now(UTC)
    with face.service() as service:
        for start, end in ((now, timedelta(days=8)), (now, timedelta(days=-1))):
            with pytest.raises(HttpResponseError) as error:
                service.get_user_delegation_key(start, now + end)
            assert error.value.status_code == 400


def test_a_caller_without_a_token_is_told_where_to_get_one(face: OwnFace) -> None:
    url = f"{face.base_url}/{JOB_ACCOUNT}/{JOB_CONTAINER}/x?timeout=5"
    status, headers, _ = ask(url, "GET", {})
    assert (status, headers["x-ms-error-code"]) == (401, "NoAuthenticationInformation")
    assert headers["www-authenticate"].startswith("Bearer authorization_uri=")
    wrong = ask(url, "GET", {"Authorization": "Bearer other"})
    assert code(wrong) == (401, "InvalidAuthenticationInfo")


def test_actions_are_recorded_and_may_be_denied(face: OwnFace) -> None:
    url = signed(face, "x", "cw")
    ask(url, "PUT", BLOCK, b"1")
    assert face.actions == {blob_access.DELEGATE, blob_access.WRITE}
    face.knobs.denied = [blob_access.WRITE]
    assert code(ask(url, "PUT", BLOCK, b"2")) == (403, "AuthorizationPermissionMismatch")


def test_a_container_that_is_not_there_is_said_to_be_missing(face: OwnFace) -> None:
    with face.service() as service, service.get_container_client("nope") as container:
        assert not container.exists()
        with pytest.raises(HttpResponseError) as error:
            list(container.list_blobs())
        assert error.value.status_code == 404
    with face.container() as container:
        assert container.exists()


def test_a_list_comes_in_parts_and_by_folder(face: OwnFace) -> None:
    with face.container() as container:
        for name in ("a/1", "a/2", "a & <b>/ü", "c"):
            container.upload_blob(name, b"x")
        names = [item.name for item in container.list_blobs(results_per_page=1)]
        assert names == ["a & <b>/ü", "a/1", "a/2", "c"]
        assert [item.name for item in container.walk_blobs()] == ["a & <b>/", "a/", "c"]


def test_a_corrupted_body_is_not_stored(face: OwnFace) -> None:
    url = signed(face, "x", "cw")
    wrong = {**BLOCK, "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert code(ask(url, "PUT", wrong, b"1")) == (400, "Md5Mismatch")
    assert ask(signed(face, "x", "r"), "GET", {})[0] == 404


@pytest.mark.parametrize("kind", ["PageBlob", "AppendBlob", "other"])
def test_only_block_blobs_are_stored(face: OwnFace, kind: str) -> None:
    answer = ask(signed(face, "x", "cw"), "PUT", {"x-ms-blob-type": kind}, b"1")
    assert code(answer) == (400, "InvalidHeaderValue")


def test_blobs_outlive_a_restart(face: OwnFace, tmp_path: Path) -> None:
    url = signed(face, "kept", "r")
    with face.container() as container:
        container.upload_blob("kept", b"bytes", metadata={"run": "1"})
    again = OwnFace(tmp_path)
    try:
        status, headers, body = ask(url.replace(face.base_url, again.base_url), "GET", {})
    finally:
        again.close()
    assert (status, headers["x-ms-meta-run"], body) == (200, "1", b"bytes")


def test_any_request_may_fail(face: OwnFace) -> None:
    url = signed(face, "x", "cw")
    face.knobs.fault_rate = 1.0
    assert code(ask(url, "PUT", BLOCK, b"1")) == (500, "InternalError")
