"""What the emulated bucket refuses, in the words and codes of Google."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imageport.sandbox.gcp import gcs_listing
from imageport.sandbox.gcp.account import BUCKET, KMS_KEY
from imageport.sandbox.gcp.gcs_store import ObjectFacts
from tests.sandbox.gcp.gcs_lab import GcsLab, crc32c_text

JSON = {"Content-Type": "application/json"}
EMPTY = ObjectFacts(crc32c="AAAAAA==")


def patch(gcs: GcsLab, name: str, document: dict[str, Any], **query: object) -> int:
    body = json.dumps(document).encode()
    return gcs.ask("PATCH", gcs.at(name, **query), body, JSON).status


def test_a_precondition_that_does_not_hold_is_said_as_google_does(gcs: GcsLab) -> None:
    gcs.put("there", b"x")
    answer = gcs.put("there", b"y", ifGenerationMatch=0)
    assert (answer.status, answer.reason) == (412, "conditionNotMet")
    message = "At least one of the pre-conditions you specified did not hold."
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize("method", ["stat", "delete", "patch", "compose", "put", "related"])
def test_every_method_heeds_a_generation(gcs: GcsLab, method: str) -> None:
    now = int(gcs.put("there", b"x").json()["generation"])

    def status(generation: int) -> int:
        query = {"ifGenerationMatch": generation}
        calls = {
            "stat": lambda: gcs.stat("there", **query).status,
            "delete": lambda: gcs.ask("DELETE", gcs.at("there", **query)).status,
            "patch": lambda: patch(gcs, "there", {"metadata": {"a": "b"}}, **query),
            "compose": lambda: gcs.compose("there", [{"name": "there"}], **query).status,
            "put": lambda: gcs.put("there", b"y", **query).status,
            "related": lambda: gcs.put_related({"name": "there"}, b"y", **query).status,
        }
        return calls[method]()

    assert status(now + 1) == 412
    assert status(now) in {200, 204}


@pytest.mark.parametrize("method", ["stat", "delete", "patch"])
def test_every_method_heeds_a_metageneration(gcs: GcsLab, method: str) -> None:
    gcs.put("there", b"x")
    assert patch(gcs, "there", {"metadata": {"a": "b"}}) == 200

    def status(metageneration: int) -> int:
        query = {"ifMetagenerationMatch": metageneration}
        calls = {
            "stat": lambda: gcs.stat("there", **query).status,
            "delete": lambda: gcs.ask("DELETE", gcs.at("there", **query)).status,
            "patch": lambda: patch(gcs, "there", {"metadata": {"a": "c"}}, **query),
        }
        return calls[method]()

    assert status(1) == 412
    assert status(2) in {200, 204}


def test_a_reader_of_what_has_not_changed_gets_nothing(gcs: GcsLab) -> None:
    now = gcs.put("there", b"x").json()["generation"]
    assert gcs.read("there", ifGenerationNotMatch=now).status == 304
    assert gcs.put("there", b"y", ifGenerationNotMatch=now).status == 412


def test_another_generation_is_as_good_as_no_object(gcs: GcsLab) -> None:
    now = int(gcs.put("there", b"x").json()["generation"])
    assert gcs.read("there", generation=now - 1).status == 404
    assert gcs.read("there", generation=now).body == b"x"


@pytest.mark.parametrize("name", ["put", "related"])
def test_bytes_with_another_checksum_make_no_object(gcs: GcsLab, name: str) -> None:
    wrong = crc32c_text(b"other")
    if name == "related":
        answer = gcs.put_related({"name": "wrong", "crc32c": wrong}, b"x")
    else:
        target = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=wrong"
        answer = gcs.ask("POST", target, b"x", {"X-Goog-Hash": f"crc32c={wrong}"})
    assert (answer.status, answer.reason) == (400, "invalid")
    assert "doesn't match calculated CRC32C" in answer.json()["error"]["message"]
    assert gcs.stat("wrong").status == 404


def test_a_wrong_md5_is_seen_too(gcs: GcsLab) -> None:
    document = {"name": "wrong", "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert gcs.put_related(document, b"x").status == 400


def test_a_body_with_its_boundary_among_the_bytes_is_refused(gcs: GcsLab) -> None:
    answer = gcs.put_related({"name": "wrong"}, b"a\r\n--x\r\nb")
    assert (answer.status, answer.reason) == (400, "badContent")


def test_no_more_than_32_objects_are_joined(gcs: GcsLab) -> None:
    gcs.put("part", b"x")
    assert gcs.compose("most", [{"name": "part"}] * 32).json()["componentCount"] == 32
    answer = gcs.compose("more", [{"name": "part"}] * 33)
    assert answer.status == 400
    assert "exceeds the maximum (32)" in answer.json()["error"]["message"]
    assert gcs.compose("none", []).status == 400
    assert gcs.compose("one", [{"name": "part"}], ifGenerationNotMatch=1).status == 400


def test_a_join_of_joins_counts_all_pieces_and_has_no_md5(gcs: GcsLab) -> None:
    gcs.put("part", b"x")
    gcs.compose("three", [{"name": "part"}] * 3)
    found = gcs.compose("seven", [{"name": "three"}, {"name": "part"}, {"name": "three"}]).json()
    assert found["componentCount"] == 7
    assert found["crc32c"] == crc32c_text(b"x" * 7)
    assert "md5Hash" not in found
    assert "md5" not in gcs.read("seven").headers["x-goog-hash"]


def test_a_source_that_changed_or_went_is_not_joined(gcs: GcsLab) -> None:
    old = gcs.put("part", b"1").json()["generation"]
    gcs.put("part", b"2")
    changed = {"name": "part", "objectPreconditions": {"ifGenerationMatch": old}}
    assert gcs.compose("joined", [changed]).status == 412
    assert gcs.compose("joined", [{"name": "part", "generation": old}]).status == 404
    assert gcs.compose("joined", [{"name": "part"}, {"name": "gone"}]).status == 404
    assert gcs.stat("joined").status == 404


def test_a_join_may_replace_one_of_its_sources(gcs: GcsLab) -> None:
    gcs.put("a", b"a")
    gcs.put("b", b"b")
    assert gcs.compose("a", [{"name": "a"}, {"name": "b"}]).status == 200
    assert gcs.read("a").body == b"ab"


def test_only_a_permitted_key_encrypts(gcs: GcsLab) -> None:
    found = gcs.put("secret", b"x", kmsKeyName=KMS_KEY).json()
    assert found["kmsKeyName"] == f"{KMS_KEY}/cryptoKeyVersions/1"
    joined = gcs.compose("joined", [{"name": "secret"}], kmsKeyName=KMS_KEY).json()
    assert joined["kmsKeyName"] == f"{KMS_KEY}/cryptoKeyVersions/1"
    answer = gcs.put("other", b"x", kmsKeyName=f"{KMS_KEY}-other")
    assert (answer.status, answer.reason) == (403, "forbidden")


def test_the_buckets_own_key_encrypts_what_names_none(gcs: GcsLab) -> None:
    gcs.knobs.bucket = {"encryption": {"defaultKmsKeyName": KMS_KEY}}
    assert gcs.put("secret", b"x").json()["kmsKeyName"].startswith(KMS_KEY)
    gcs.put("part", b"x")
    assert "kmsKeyName" in gcs.compose("joined", [{"name": "part"}]).json()


def test_what_is_null_in_a_patch_goes(gcs: GcsLab) -> None:
    gcs.put_related({"name": "there", "metadata": {"a": "1", "b": "2"}}, b"x")
    assert patch(gcs, "there", {"metadata": {"a": None}}) == 200
    found = gcs.stat("there").json()
    assert found["metadata"] == {"b": "2"}
    assert found["metageneration"] == "2"
    assert patch(gcs, "there", {"metadata": None}) == 200
    assert "metadata" not in gcs.stat("there").json()


@pytest.mark.parametrize(
    "document",
    [
        {"metadata": {"number": 1}},
        {"metadata": ["list"]},
        {"metadata": {"long": "x" * 9000}},
        {"size": "1"},
    ],
)
def test_metadata_are_text_and_few(gcs: GcsLab, document: dict[str, Any]) -> None:
    gcs.put("there", b"x")
    assert patch(gcs, "there", document) == 400


@pytest.mark.parametrize("name", [".", "..", "a\nb", "x" * 1025])
def test_some_names_are_none(gcs: GcsLab, name: str) -> None:
    assert gcs.put(name, b"x").status == 400


def test_a_range_behind_the_end_is_refused(gcs: GcsLab) -> None:
    gcs.put("short", b"x")
    answer = gcs.read("short", {"Range": "bytes=5-9"})
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */1"


def test_refusals_of_bytes_are_plain_text(gcs: GcsLab) -> None:
    answer = gcs.read("missing")
    assert answer.status == 404
    assert answer.body == f"No such object: {BUCKET}/missing".encode()
    assert gcs.stat("missing").reason == "notFound"


def test_another_bucket_does_not_exist(gcs: GcsLab) -> None:
    answer = gcs.ask("GET", "/storage/v1/b/another/o")
    assert answer.status == 404
    assert answer.json()["error"]["message"] == "The specified bucket does not exist."


def test_parameters_that_would_be_ignored_are_refused(gcs: GcsLab) -> None:
    answer = gcs.list(matchGlob="**")
    assert (answer.status, answer.reason) == (400, "invalidParameter")


def test_only_the_fields_that_were_asked_for_come(gcs: GcsLab) -> None:
    gcs.put_related({"name": "there", "metadata": {"a": "1", "b": "2"}}, b"x")
    found = gcs.list(fields="items(name,metadata/a),nextPageToken").json()
    assert found == {"items": [{"name": "there", "metadata": {"a": "1"}}]}
    assert gcs.stat("there", fields="size").json() == {"size": "1"}
    assert gcs.stat("there", fields="size)").status == 400


def test_fields_that_nothing_has_are_refused(gcs: GcsLab) -> None:
    gcs.put("there", b"x")
    answers = [
        gcs.stat("there", fields="size,crc32"),
        gcs.put("other", b"x", fields="nextPageToken"),
        gcs.list(fields="items(name,generatoin)"),
        gcs.list(fields="name"),
    ]
    assert [(one.status, one.reason) for one in answers] == [(400, "invalidParameter")] * 4
    assert gcs.stat("other").status == 404
    assert gcs.list(fields="*").status == 200


def test_a_checksum_that_is_none_is_refused(gcs: GcsLab) -> None:
    target = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=wrong"
    for said in ("crc32=AAAAAA==", "crc32c", "crc32c=AAAAAA==;md5=x"):
        answer = gcs.ask("POST", target, b"x", {"X-Goog-Hash": said})
        assert (answer.status, answer.reason) == (400, "invalid")
    both = f"crc32c={crc32c_text(b'x')}, md5=AAAAAAAAAAAAAAAAAAAAAA=="
    answer = gcs.ask("POST", target, b"x", {"X-Goog-Hash": both})
    assert "doesn't match calculated MD5" in answer.json()["error"]["message"]


@pytest.mark.parametrize("member", ["contentEncoding", "customTime", "temporaryHold"])
def test_what_would_not_be_kept_up_is_refused(gcs: GcsLab, member: str) -> None:
    answer = gcs.put_related({"name": "there", member: "gzip"}, b"x")
    assert (answer.status, answer.reason) == (400, "notImplemented")


def test_a_page_holds_a_thousand_at_most(gcs: GcsLab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gcs_listing.MOST_RESULTS == 1000
    monkeypatch.setattr(gcs_listing, "MOST_RESULTS", 10)
    for index in range(11):
        part = gcs.emulator.objects.new_part()
        part.touch()
        gcs.emulator.objects.put(f"{index:04d}", part, EMPTY, lambda _found: None)
    first = gcs.list(maxResults=5000).json()
    assert len(first["items"]) == 10
    rest = gcs.list(pageToken=first["nextPageToken"]).json()
    assert [item["name"] for item in rest["items"]] == ["0010"]
    assert "nextPageToken" not in rest


def test_the_bucket_says_what_it_is(gcs: GcsLab) -> None:
    found = gcs.ask("GET", f"/storage/v1/b/{BUCKET}").json()
    assert found["location"] == "EUROPE-WEST3"
    assert found["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"]
    gcs.knobs.bucket = {"lifecycle": None, "retentionPolicy": {"retentionPeriod": "1"}}
    found = gcs.ask("GET", f"/storage/v1/b/{BUCKET}").json()
    assert "lifecycle" not in found
    assert found["retentionPolicy"] == {"retentionPeriod": "1"}
