"""Where fake-gcs-server is no second opinion: what Google refuses and it lets pass, beside ours.

A row that fails here after an update says that it has learnt something: move it to the assertions
that both have to meet.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.sandbox.gcp.fake_gcs import fake_gcs_bucket
from tests.sandbox.gcp.gcs_lab import Answer, Bucket, GcsLab, crc32c_text

OLD = 1
"""A generation that no object here has."""

pytestmark = pytest.mark.slow  # it has to be built, for a minute and a half of a core


def _wrong_hash(bucket: Bucket) -> Answer:
    target = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=new"
    return bucket.ask("POST", target, b"x", {"X-Goog-Hash": f"crc32c={crc32c_text(b'other')}"})


def _changed_source(bucket: Bucket) -> Answer:
    source = {"name": "there", "objectPreconditions": {"ifGenerationMatch": str(OLD)}}
    return bucket.compose("new", [source])


def _patched(bucket: Bucket) -> Answer:
    body = json.dumps({"metadata": {"a": "b"}}).encode()
    headers = {"Content-Type": "application/json"}
    return bucket.ask("PATCH", bucket.at("there", ifMetagenerationMatch=77), body, headers)


def _begun(bucket: Bucket) -> Answer:
    query = "uploadType=resumable&name=there&ifGenerationMatch=0"
    return bucket.ask("POST", f"/upload/storage/v1/b/{bucket.name}/o?{query}", b"{}")


def _gap(bucket: Bucket) -> Answer:
    return bucket.chunk(bucket.begin("new"), "262144-262144/262145", b"x")


def _question(bucket: Bucket) -> Answer:
    return bucket.chunk(bucket.begin("new"), "*/*")


ROWS: dict[str, tuple[Callable[[Bucket], Answer], int, int]] = {
    "a wrong checksum in a header": (_wrong_hash, 400, 200),
    "a source that changed": (_changed_source, 412, 200),
    "a join onto what is there": (
        lambda bucket: bucket.compose("there", [{"name": "there"}], ifGenerationMatch=0), 412, 200,
    ),
    "a look at another generation": (
        lambda bucket: bucket.stat("there", ifGenerationMatch=OLD), 412, 200,
    ),
    "a deletion of another generation": (
        lambda bucket: bucket.ask("DELETE", bucket.at("there", ifGenerationMatch=OLD)), 412, 200,
    ),
    "a patch of another metageneration": (_patched, 412, 200),
    "a session for what is there": (_begun, 412, 200),
    "a short chunk": (
        lambda bucket: bucket.chunk(bucket.begin("new"), "0-0/*", b"x"), 400, 308,
    ),
    "a gap in a session": (_gap, 503, 200),
    "how far a session is": (_question, 308, 200),
    "a line end in a name": (lambda bucket: bucket.put("a\nb", b"x"), 400, 200),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_emulated_bucket_is_stricter(row: str, gcs: GcsLab) -> None:
    call, ours, theirs = ROWS[row]
    found = []
    for bucket in (gcs, fake_gcs_bucket()):
        assert bucket.put("there", b"x").status == 200
        found.append(call(bucket).status)
    assert found == [ours, theirs]


def test_joined_objects_have_an_md5_and_no_count_there() -> None:
    bucket = fake_gcs_bucket()
    bucket.put("part", b"x")
    found = bucket.compose("joined", [{"name": "part"}, {"name": "part"}]).json()
    assert "md5Hash" in found
    assert "componentCount" not in found


def test_both_join_32_objects_and_no_more(gcs: GcsLab) -> None:
    for bucket in (gcs, fake_gcs_bucket()):
        bucket.put("part", b"x")
        assert bucket.compose("joined", [{"name": "part"}] * 32).status == 200
        assert bucket.compose("joined", [{"name": "part"}] * 33).status == 400
