"""Signed URLs, made by Google's own client: what each lets one do, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.cloud import storage
from google.oauth2 import service_account

from imageport.sandbox.gcp.account import BUCKET, KEY_FILE, PROJECT
from tests.sandbox.gcp.gcs_lab import Answer, Bucket, GcsLab, crc32c_text


def signed(gcs: GcsLab, method: str, name: str, seconds: float = 60, **options: Any) -> str:
    """Return a URL of the account's key file."""
    read: Callable[..., Any] = service_account.Credentials.from_service_account_file
    credentials = read(str(gcs.emulator.root / KEY_FILE))
    client = storage.Client(project=PROJECT, credentials=credentials)
    url: str = client.bucket(BUCKET).blob(name).generate_signed_url(
        version="v4", method=method, expiration=timedelta(seconds=seconds),
        api_access_endpoint=gcs.endpoint, **options,
    )  # fmt: skip
    client.close()
    return url


def ask(gcs: GcsLab, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
    """Send a request without any token."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Bucket(gcs.endpoint, gcs.name, {}).ask(method, url, body, named)


def code(answer: Answer) -> tuple[int, str]:
    """Return status and code of a refusal in the XML API's form."""
    text = answer.body.decode()
    return answer.status, text.partition("<Code>")[2].partition("</Code>")[0]


def test_a_url_reads_one_object(gcs: GcsLab) -> None:
    gcs.put("jobs/a b/ü", b"job")
    url = signed(gcs, "GET", "jobs/a b/ü")
    answer = ask(gcs, "GET", url)
    assert (answer.status, answer.body) == (200, b"job")
    assert f"crc32c={crc32c_text(b'job')}" in answer.headers["x-goog-hash"]
    assert code(ask(gcs, "GET", url.replace("/jobs/", "/other/"))) == (403, "SignatureDoesNotMatch")


def test_a_url_reads_a_range(gcs: GcsLab) -> None:
    gcs.put("job", b"0123456789")
    answer = ask(gcs, "GET", signed(gcs, "GET", "job"), Range="bytes=2-4")
    assert (answer.status, answer.body) == (206, b"234")


def test_a_url_writes_one_object(gcs: GcsLab) -> None:
    url = signed(gcs, "PUT", "result")
    assert ask(gcs, "PUT", url, b"done").status == 200
    assert gcs.read("result").body == b"done"


def test_a_url_is_for_one_method(gcs: GcsLab) -> None:
    gcs.put("job", b"x")
    url = signed(gcs, "GET", "job")
    assert code(ask(gcs, "PUT", url, b"y")) == (403, "SignatureDoesNotMatch")
    assert code(ask(gcs, "DELETE", url)) == (403, "SignatureDoesNotMatch")
    assert gcs.read("job").body == b"x"


def test_a_url_ends_when_it_said(gcs: GcsLab) -> None:
    gcs.put("job", b"x")
    url = signed(gcs, "GET", "job", seconds=60)
    gcs.knobs.clock_skew_seconds = -61
    assert code(ask(gcs, "GET", url)) == (400, "ExpiredToken")
    longer = url.replace("X-Goog-Expires=60", "X-Goog-Expires=600")
    assert code(ask(gcs, "GET", longer)) == (403, "SignatureDoesNotMatch")


def test_a_url_of_a_clock_that_is_ahead_is_refused(gcs: GcsLab) -> None:
    url = signed(gcs, "GET", "job")
    gcs.knobs.clock_skew_seconds = 1000
    assert code(ask(gcs, "GET", url)) == (403, "RequestTimeTooSkewed")


def test_a_url_lasts_a_week_at_most(gcs: GcsLab) -> None:
    url = signed(gcs, "GET", "job", seconds=7 * 24 * 3600)
    assert code(ask(gcs, "GET", url)) == (404, "NoSuchKey")
    longer = url.replace("X-Goog-Expires=604800", "X-Goog-Expires=604801")
    assert code(ask(gcs, "GET", longer)) == (400, "InvalidArgument")


def test_a_url_is_for_one_host(gcs: GcsLab) -> None:
    gcs.put("job", b"x")
    answer = ask(gcs, "GET", signed(gcs, "GET", "job"), Host="another.example")
    assert code(answer) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("sent", ["0", "1", ""])
def test_a_signed_header_has_to_come_as_signed(gcs: GcsLab, sent: str) -> None:
    headers = {"x-goog-if-generation-match": "0"}
    url = signed(gcs, "PUT", "result", headers=headers)
    given = {"x_goog_if_generation_match": sent} if sent else {}
    answer = ask(gcs, "PUT", url, b"first", **given)
    assert answer.status == (200 if sent == "0" else 403)


def test_a_signed_precondition_holds(gcs: GcsLab) -> None:
    url = signed(gcs, "PUT", "result", headers={"x-goog-if-generation-match": "0"})
    sent = {"x_goog_if_generation_match": "0"}
    assert ask(gcs, "PUT", url, b"first", **sent).status == 200
    assert code(ask(gcs, "PUT", url, b"second", **sent)) == (412, "PreconditionFailed")
    assert gcs.read("result").body == b"first"


def test_an_extension_header_that_was_not_signed_is_refused(gcs: GcsLab) -> None:
    answer = ask(gcs, "PUT", signed(gcs, "PUT", "result"), b"x", x_goog_meta_own="1")
    assert code(answer) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Goog-Algorithm=GOOG4-RSA-SHA256", "X-Goog-Algorithm=GOOG4-HMAC-SHA256"),
        ("X-Goog-SignedHeaders=host", "X-Goog-SignedHeaders=x"),
        ("X-Goog-Expires=60", "X-Goog-Expires=none"),
        ("X-Goog-Expires=60", "X-Goog-Expires=60&X-Goog-Expires=60"),
        ("X-Goog-Expires=60&", ""),
        ("X-Goog-Signature=", "X-Goog-Signature=x"),
    ],
)
def test_a_malformed_url_is_refused(gcs: GcsLab, old: str, new: str) -> None:
    gcs.put("job", b"x")
    url = signed(gcs, "GET", "job")
    assert old in url
    assert code(ask(gcs, "GET", url.replace(old, new))) == (400, "InvalidArgument")


def test_parameters_that_were_not_signed_are_refused(gcs: GcsLab) -> None:
    gcs.put("job", b"x")
    url = signed(gcs, "GET", "job")
    answer = ask(gcs, "GET", f"{url}&x-goog-user-project=other")
    assert code(answer) == (403, "SignatureDoesNotMatch")


def test_a_url_may_do_no_more_than_who_signed_it(gcs: GcsLab) -> None:
    gcs.put("job", b"x")
    gcs.knobs.denied = ["storage.objects.get"]
    assert code(ask(gcs, "GET", signed(gcs, "GET", "job"))) == (403, "AccessDenied")


def test_a_wrong_checksum_is_seen(gcs: GcsLab) -> None:
    wrong = f"crc32c={crc32c_text(b'other')}"
    url = signed(gcs, "PUT", "result", headers={"x-goog-hash": wrong})
    assert ask(gcs, "PUT", url, b"x", x_goog_hash=wrong).status == 400
    assert gcs.stat("result").status == 404


def test_headers_that_would_be_ignored_are_refused(gcs: GcsLab) -> None:
    answer = gcs.ask("PUT", f"/{BUCKET}/key", b"x", {"x-goog-content-length-range": "0,10"})
    assert answer.status == 400
    assert b"x-goog-content-length-range" in answer.body
    assert gcs.stat("key").status == 404


def test_a_bearer_may_use_the_same_paths(gcs: GcsLab) -> None:
    answer = gcs.ask("PUT", f"/{BUCKET}/plain/key", b"x", {"x-goog-meta-own": "1"})
    assert answer.status == 200
    assert gcs.stat("plain/key").json()["metadata"] == {"own": "1"}
    assert gcs.ask("GET", f"/{BUCKET}/plain/key").body == b"x"
    head = gcs.ask("HEAD", f"/{BUCKET}/plain/key")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1")
    assert gcs.ask("DELETE", f"/{BUCKET}/plain/key").status == 204
    assert code(gcs.ask("GET", f"/{BUCKET}/plain/key")) == (404, "NoSuchKey")
    assert code(gcs.ask("GET", "/another/key")) == (404, "NoSuchBucket")
    assert Bucket(gcs.endpoint, gcs.name, {}).ask("GET", f"/{BUCKET}/plain/key").status == 401
