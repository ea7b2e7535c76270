"""Who asks, and what that one may: tokens, federation and boundaries, by Google's own clients."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import google.auth.exceptions
import pytest
from google.auth import downscoped, identity_pool
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from imageport.sandbox.gcp.account import BUCKET, FEDERATION_FILE, KEY_FILE, SERVICE_ACCOUNT
from imageport.sandbox.gcp.token_http import ACCESS_TOKEN, EXCHANGE_GRANT
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM
from tests.sandbox.gcp.gcs_lab import Answer, Bucket, GcsLab

READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PREFIX = f"projects/_/buckets/{BUCKET}/objects/out/image/"


def as_bearer(gcs: GcsLab, token: str) -> Bucket:
    return Bucket(gcs.endpoint, gcs.name, {"Authorization": f"Bearer {token}"})


def key_credentials(gcs: GcsLab) -> Any:
    path = gcs.emulator.root / KEY_FILE
    make: Callable[..., Any] = service_account.Credentials.from_service_account_file
    return make(str(path), scopes=[CLOUD_PLATFORM])


def refreshed(credentials: Any) -> str:
    credentials.refresh(Request())  # type: ignore[no-untyped-call]
    return str(credentials.token)


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{BUCKET}",
        "availablePermissions": ["inRole:roles/storage.objectCreator"],
        "availabilityCondition": {"expression": f"resource.name.startsWith('{PREFIX}')"},
        **changes,
    }


def exchange(gcs: GcsLab, token: str, rules: list[dict[str, Any]]) -> Answer:
    form = {
        "grant_type": EXCHANGE_GRANT,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "options": json.dumps({"accessBoundary": {"accessBoundaryRules": rules}}),
    }
    return gcs.ask("POST", "/v1/token", urlencode(form).encode(), FORM)


def restricted(gcs: GcsLab, *rules: dict[str, Any]) -> Bucket:
    token = gcs.bearer().partition(" ")[2]
    answer = exchange(gcs, token, list(rules) or [rule()])
    assert answer.status == 200, answer
    return as_bearer(gcs, answer.json()["access_token"])


def test_a_key_file_becomes_the_account(gcs: GcsLab) -> None:
    assert as_bearer(gcs, refreshed(key_credentials(gcs))).put("a", b"x").status == 200


def test_a_foreign_token_becomes_the_account(gcs: GcsLab) -> None:
    path = gcs.emulator.root / FEDERATION_FILE
    make: Callable[..., Any] = identity_pool.Credentials.from_file
    credentials = make(str(path), scopes=[CLOUD_PLATFORM])
    assert as_bearer(gcs, refreshed(credentials)).put("a", b"x").status == 200
    assert "iam.serviceAccounts.getAccessToken" in gcs.emulator.calls.document()["permissions"]


def test_a_foreign_identity_alone_may_nothing(gcs: GcsLab) -> None:
    document = json.loads((gcs.emulator.root / FEDERATION_FILE).read_text())
    subject = Path(document["credential_source"]["file"]).read_text()
    form = {
        "grant_type": EXCHANGE_GRANT,
        "audience": document["audience"],
        "scope": CLOUD_PLATFORM,
        "subject_token": subject,
        "subject_token_type": document["subject_token_type"],
        "requested_token_type": ACCESS_TOKEN,
    }
    answer = gcs.ask("POST", "/v1/token", urlencode(form).encode(), FORM)
    assert as_bearer(gcs, answer.json()["access_token"]).put("a", b"x").status == 403
    form["audience"] = "//iam.googleapis.com/another"
    answer = gcs.ask("POST", "/v1/token", urlencode(form).encode(), FORM)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_grant")


def test_a_client_may_sign_its_own_token(gcs: GcsLab) -> None:
    key, now = gcs.emulator.tokens.account_key, int(time.time())
    claims = {
        "iss": SERVICE_ACCOUNT,
        "sub": SERVICE_ACCOUNT,
        "aud": "https://storage.googleapis.com/",
        "iat": now,
        "exp": now + 3600,
    }
    assert as_bearer(gcs, key.jwt(claims)).put("a", b"x").status == 200
    for wrong in (
        {"exp": now - 1},
        {"exp": now + 3700},
        {"iss": "x"},
        {"aud": "https://x.example"},
    ):
        assert as_bearer(gcs, key.jwt({**claims, **wrong})).put("b", b"x").status == 401
    other = gcs.emulator.tokens.issuer_key
    assert as_bearer(gcs, other.jwt(claims)).put("b", b"x").status == 401


def test_an_assertion_by_another_key_or_at_another_time_is_no_grant(gcs: GcsLab) -> None:
    credentials = key_credentials(gcs)
    gcs.knobs.clock_skew_seconds = -2 * 3600
    with pytest.raises(google.auth.exceptions.RefreshError, match="reasonable timeframe"):
        refreshed(credentials)
    gcs.knobs.clock_skew_seconds = 2 * 3600
    with pytest.raises(google.auth.exceptions.RefreshError, match="reasonable timeframe"):
        refreshed(credentials)


@pytest.mark.parametrize("header", ["", "Bearer unknown", "Basic eDp5", "Bearer a.b.c"])
def test_nobody_may_nothing(gcs: GcsLab, header: str) -> None:
    anonymous = Bucket(gcs.endpoint, gcs.name, {"Authorization": header})
    answer = anonymous.stat("a")
    assert answer.status == 401
    assert "www-authenticate" in answer.headers


def test_a_token_lasts_as_long_as_it_says(gcs: GcsLab) -> None:
    gcs.knobs.token_seconds = 30
    credentials = key_credentials(gcs)
    bucket = as_bearer(gcs, refreshed(credentials))
    left = credentials.expiry - datetime.now(UTC).replace(tzinfo=None)
    assert left.total_seconds() == pytest.approx(30, abs=10)
    assert bucket.put("a", b"x").status == 200
    gcs.knobs.clock_skew_seconds = -31
    answer = bucket.put("a", b"x")
    assert (answer.status, answer.reason) == (401, "authError")


def test_a_scope_limits_a_token(gcs: GcsLab) -> None:
    gcs.put("a", b"x")
    reader = Bucket(gcs.endpoint, gcs.name, {"Authorization": gcs.bearer(READ_ONLY)})
    assert reader.read("a").status == 200
    assert reader.put("b", b"x").status == 403


def test_a_denied_permission_is_named(gcs: GcsLab) -> None:
    gcs.knobs.denied = ["storage.objects.create"]
    answer = gcs.put("a", b"x")
    assert (answer.status, answer.reason) == (403, "forbidden")
    message = answer.json()["error"]["message"]
    assert "Permission 'storage.objects.create' denied on resource" in message
    target = f"/storage/v1/b/{BUCKET}/iam/testPermissions"
    asked = "permissions=storage.objects.create&permissions=storage.objects.get"
    answer = gcs.ask("GET", f"{target}?{asked}")
    assert answer.json()["permissions"] == ["storage.objects.get"]


def test_who_may_not_list_is_not_told_that_something_is_missing(gcs: GcsLab) -> None:
    gcs.put("there", b"x")
    gcs.knobs.denied = ["storage.objects.list"]
    assert gcs.read("there").body == b"x"
    for answer in (gcs.stat("missing"), gcs.read("missing"), gcs.ask("GET", f"/{BUCKET}/missing")):
        assert answer.status == 403
        assert b"storage.objects.get" in answer.body


def test_who_may_not_delete_does_not_overwrite(gcs: GcsLab) -> None:
    gcs.put("a", b"x")
    gcs.knobs.denied = ["storage.objects.delete"]
    answer = gcs.put("a", b"y")
    assert (answer.status, answer.reason) == (403, "forbidden")
    assert "storage.objects.delete" in answer.json()["error"]["message"]
    assert gcs.put("b", b"y").status == 200
    assert gcs.compose("a", [{"name": "b"}]).status == 403


def test_a_boundary_lets_create_below_its_prefix_and_nothing_else(gcs: GcsLab) -> None:
    gcs.put("out/image/there", b"x")
    creator = restricted(gcs)
    assert creator.put("out/image/new", b"x", ifGenerationMatch=0).status == 200
    assert creator.put("out/image/new", b"y", ifGenerationMatch=0).status == 403
    assert creator.put("out/image/there", b"y").status == 403
    assert creator.put("out/other/new", b"x").status == 403
    assert creator.put("out/image", b"x").status == 403
    assert creator.read("out/image/there").status == 403
    assert creator.stat("out/image/there").status == 403
    assert creator.list(prefix="out/image/").status == 403
    assert creator.ask("DELETE", creator.at("out/image/there")).status == 403
    assert creator.compose("out/image/join", [{"name": "out/image/there"}]).status == 403
    assert gcs.read("out/image/there").body == b"x"


def test_nobody_knows_whether_the_precondition_is_looked_at_first(gcs: GcsLab) -> None:
    gcs.knobs.preconditions_first = True
    gcs.put("out/image/there", b"x")
    creator = restricted(gcs)
    assert creator.put("out/image/there", b"y", ifGenerationMatch=0).status == 412


def test_a_restricted_token_is_for_storage_alone_and_is_not_exchanged_again(gcs: GcsLab) -> None:
    creator = restricted(gcs)
    token = creator.headers["Authorization"].partition(" ")[2]
    answer = exchange(gcs, token, [rule()])
    assert (answer.status, answer.json()["error"]) == (400, "invalid_grant")
    target = f"/v1/projects/-/serviceAccounts/{SERVICE_ACCOUNT}:signBlob"
    assert creator.ask("POST", target, b'{"payload": "eA=="}').status == 403


def test_a_restricted_session_goes_on_as_what_it_was(gcs: GcsLab) -> None:
    creator = restricted(gcs)
    url = creator.begin("out/image/new")
    gcs.put("out/image/new", b"x")
    assert creator.chunk(url, "0-0/1", b"y").status == 403


def test_googles_own_client_restricts_as_well(gcs: GcsLab) -> None:
    make: Callable[..., Any] = downscoped.AccessBoundaryRule
    condition: Callable[..., Any] = downscoped.AvailabilityCondition
    found = make(
        available_resource=rule()["availableResource"],
        available_permissions=rule()["availablePermissions"],
        availability_condition=condition(rule()["availabilityCondition"]["expression"]),
    )
    boundary: Any = downscoped.CredentialAccessBoundary([found])  # type: ignore[no-untyped-call]
    form = {
        "grant_type": EXCHANGE_GRANT,
        "subject_token": refreshed(key_credentials(gcs)),
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        # Quoted twice: so does google.oauth2.sts.
        "options": quote(json.dumps(boundary.to_json())),
    }
    answer = gcs.ask("POST", "/v1/token", urlencode(form).encode(), FORM)
    assert answer.json()["expires_in"] == pytest.approx(3600, abs=30)
    creator = as_bearer(gcs, answer.json()["access_token"])
    assert creator.put("out/image/a", b"x").status == 200
    assert creator.put("elsewhere", b"x").status == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"availablePermissions": ["inRole:roles/owner"]},
        {"availablePermissions": ["roles/storage.objectCreator"]},
        {"availableResource": "//compute.googleapis.com/projects/x"},
        {"availabilityCondition": {"expression": "true"}},
        {"title": "x"},
    ],
)
def test_a_boundary_that_would_not_be_understood_is_refused(
    gcs: GcsLab, changes: dict[str, Any]
) -> None:
    answer = exchange(gcs, gcs.bearer().partition(" ")[2], [rule(**changes)])
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


def test_a_boundary_has_at_most_ten_rules(gcs: GcsLab) -> None:
    token = gcs.bearer().partition(" ")[2]
    assert exchange(gcs, token, [rule()] * 10).status == 200
    assert exchange(gcs, token, [rule()] * 11).status == 400
    assert exchange(gcs, token, []).status == 400


def test_rules_add_up(gcs: GcsLab) -> None:
    gcs.put("in/a", b"x")
    reading = rule(
        availablePermissions=["inRole:roles/storage.objectViewer"],
        availabilityCondition={
            "expression": f"resource.name.startsWith('projects/_/buckets/{BUCKET}/objects/in/') || "
            "api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('in/')"
        },
    )
    both = restricted(gcs, rule(), reading)
    assert both.put("out/image/a", b"x").status == 200
    assert both.read("in/a").status == 200
    assert both.list(prefix="in/").status == 200
    assert both.list(prefix="").status == 403
    assert both.read("out/image/a").status == 403


def test_another_bucket_in_a_boundary_gives_nothing_here(gcs: GcsLab) -> None:
    other = rule(availableResource="//storage.googleapis.com/projects/_/buckets/another")
    assert restricted(gcs, other).put("out/image/a", b"x").status == 403


def test_google_signs_with_a_key_of_its_own(gcs: GcsLab) -> None:
    target = f"/v1/projects/-/serviceAccounts/{SERVICE_ACCOUNT}:signBlob"
    body = json.dumps({"payload": base64.b64encode(b"text").decode()}).encode()
    answer = gcs.ask("POST", target, body).json()
    signed = base64.b64decode(answer["signedBlob"])
    assert gcs.emulator.tokens.system_key.verifies(b"text", signed)
    assert not gcs.emulator.tokens.account_key.verifies(b"text", signed)
    gcs.knobs.denied = ["iam.serviceAccounts.signBlob"]
    refused = gcs.ask("POST", target, body)
    assert refused.status == 403
    assert refused.json()["error"]["status"] == "PERMISSION_DENIED"
