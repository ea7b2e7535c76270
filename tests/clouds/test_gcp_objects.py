"""The bucket's objects: written once, checked both ways, listed, joined, sent in order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds.gcp import objects as module
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.error_mapping import CHANGED
from imageport.clouds.gcp.objects import NO_GENERATION, ObjectFacts, Objects, crc32c_of
from imageport.errors import (
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    InputError,
    PermissionMissing,
    ResourceGone,
)
from imageport.sandbox.gcp.account import KMS_KEY
from tests.clouds.gcp_laboratory import GcpLab

PART = 256 * 1024


@pytest.fixture
def objects(gcp_lab: GcpLab) -> Objects:
    return Objects(gcp_lab.account("run-1"))


def test_an_object_is_written_once_and_never_replaced(objects: Objects):
    assert objects.put_once("t/a", b"first", {"crc32": "00"})
    assert not objects.put_once("t/a", b"second")
    assert objects.get("t/a") == b"first"
    facts = objects.stat("t/a")
    assert facts is not None
    assert (facts.size_bytes, facts.crc32c) == (5, crc32c_of(b"first"))
    assert facts.metadata == {"crc32": "00"}
    assert objects.stat("t/b") is None


def test_what_is_written_is_not_copied_and_may_be_sent_again(
    gcp_lab: GcpLab, objects: Objects, monkeypatch: pytest.MonkeyPatch
):
    sent: list[Any] = []
    request = gcp_lab.clients.session.request

    def watched(method: str, url: str, *, data: Any, **named: Any) -> Any:
        sent.append(data)
        return request(method, url, data=data, **named)

    monkeypatch.setattr(gcp_lab.clients.session, "request", watched)
    block = os.urandom(5000)
    objects.put("t/a", block)
    (body,) = sent
    assert [piece is block for piece in body] == [False, True, False]
    assert len(body) == sum(len(piece) for piece in body)


def test_a_precondition_that_does_not_hold_is_told_apart(objects: Objects):
    first = objects.put("t/a", b"first")
    assert objects.put("t/a", b"second", generation=first.generation).size_bytes == 6
    with pytest.raises(CloudRefused) as caught:
        objects.put("t/a", b"third", generation=first.generation)
    assert caught.value.fields["gcp_code"] == CHANGED


def test_a_write_whose_answer_was_lost_is_found_by_the_next(gcp_lab: GcpLab, objects: Objects):
    gcp_lab.service.turn(lost_answers=1)
    with pytest.raises(CloudUnavailable):
        objects.put_once("t/a", b"data")
    assert not objects.put_once("t/a", b"data")


@pytest.mark.parametrize("knobs", [{"corrupted_answers": 1}, {"truncated_answers": 1}])
def test_what_arrives_damaged_is_never_returned(
    gcp_lab: GcpLab, objects: Objects, knobs: dict[str, int]
):
    data = os.urandom(5000)
    objects.put("t/a", data)
    gcp_lab.service.turn(**knobs)
    with pytest.raises(CloudUnavailable):
        objects.get("t/a")
    assert objects.get("t/a") == data


def test_an_object_that_is_longer_than_asked_for_is_not_read_whole(objects: Objects):
    objects.put("t/a", bytes(100_000))
    with pytest.raises(CloudRefused, match=r"'t/a': found more than 99999 bytes"):
        objects.get("t/a", 99_999)
    assert len(objects.get("t/a", 100_000)) == 100_000


def test_a_listing_goes_over_pages_and_keeps_to_its_ends(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("imageport.clouds.gcp.objects.PAGE_OBJECTS", 2)
    for name in "abcde":
        objects.put(f"t/{name}", name.encode(), {"name": name})
    objects.put("u/x", b"")
    assert [item.key for item in objects.list("t/")] == ["t/a", "t/b", "t/c", "t/d", "t/e"]
    assert [item.key for item in objects.list("t/", start="t/b", end="t/d")] == ["t/b", "t/c"]
    assert next(objects.list("t/")).metadata == {"name": "a"}


def test_what_passes_by_itself_ends_no_listing_and_no_deletion(gcp_lab: GcpLab, objects: Objects):
    keys = [f"t/{number}" for number in range(20)]
    for key in keys:
        objects.put(key, b"x")
    gcp_lab.service.turn(fault_rate=0.3, seed=5)
    assert len(list(objects.list("t/"))) == 20
    assert objects.delete_many([*keys, "t/never"]) == 21
    gcp_lab.service.turn(fault_rate=0.0)
    assert list(objects.list("t/")) == []


def test_only_the_generation_that_was_meant_is_deleted(objects: Objects):
    old = objects.put("t/a", b"old")
    objects.put("t/a", b"new")
    with pytest.raises(CloudRefused):
        objects.delete("t/a", generation=old.generation)
    objects.delete("t/a")
    objects.delete("t/a")
    with pytest.raises(ResourceGone):
        objects.get("t/a")


def test_single_entries_of_metadata_change(objects: Objects):
    first = objects.put("t/a", b"x", {"keep": "1", "go": "2"})
    changed = objects.set_metadata("t/a", {"go": None, "new": "3"})
    assert changed.metadata == {"keep": "1", "new": "3"}
    assert changed.generation == first.generation
    with pytest.raises(CloudRefused):
        objects.set_metadata("t/a", {"x": "y"}, metageneration=first.metageneration)


def test_objects_are_joined_if_they_are_those_that_were_meant(objects: Objects):
    parts = [objects.put(f"t/{name}", name.encode()) for name in ("one", "two")]
    sources = [(item.key, item.generation) for item in parts]
    joined = objects.compose("t/joined", sources, {"k": "v"}, generation=NO_GENERATION)
    assert (joined.size_bytes, joined.components, joined.crc32c) == (6, 2, crc32c_of(b"onetwo"))
    assert objects.get("t/joined") == b"onetwo"
    with pytest.raises(CloudRefused) as caught:
        objects.compose("t/other", [("t/one", parts[0].generation + 1)])
    assert caught.value.fields["gcp_code"] == CHANGED
    with pytest.raises(ResourceGone):
        objects.compose("t/other", [("t/three", 1)])


def test_an_upload_in_order_resumes_where_it_was_cut(gcp_lab: GcpLab, objects: Objects):
    data = os.urandom(2 * PART + 77)
    session = objects.open_session("t/long", {"k": "v"})
    assert objects.session_offset(session, "t/long") == 0
    assert objects.put_chunk(session, 0, data[:PART], None, "t/long") == PART
    again = Objects(gcp_lab.account("run-2"))
    assert again.session_offset(session, "t/long") == PART
    middle = data[PART : 2 * PART]
    assert again.put_chunk(session, PART, middle, None, "t/long") == 2 * PART
    done = again.put_chunk(session, 2 * PART, data[2 * PART :], len(data), "t/long")
    assert isinstance(done, ObjectFacts)
    assert (done.size_bytes, done.crc32c, done.metadata) == (len(data), crc32c_of(data), {"k": "v"})
    finished = again.session_offset(session, "t/long")
    assert isinstance(finished, ObjectFacts)


def test_a_session_that_keeps_less_than_it_was_sent_says_so(gcp_lab: GcpLab, objects: Objects):
    session = objects.open_session("t/long")
    gcp_lab.service.turn(short_persists=1)
    assert objects.put_chunk(session, 0, bytes(2 * PART), None, "t/long") == PART


def test_a_session_that_was_given_up_is_gone(objects: Objects):
    session = objects.open_session("t/long")
    objects.close_session(session, "t/long")
    with pytest.raises(ResourceGone):
        objects.session_offset(session, "t/long")
    objects.close_session(session, "t/long")


def test_a_file_is_written_with_its_checksum(objects: Objects, tmp_path: Path):
    path = tmp_path / "drivers.zip"
    for size in (0, 9 * 1024 * 1024 + 5):
        path.write_bytes(os.urandom(size))
        objects.put_file("t/file", path)
        assert objects.get("t/file") == path.read_bytes()


def test_a_file_that_is_not_taken_is_named(gcp_lab: GcpLab, objects: Objects, tmp_path: Path):
    path = tmp_path / "drivers.zip"
    path.write_bytes(b"x")
    open_session = objects.open_session
    objects.open_session = lambda *named, **options: (  # type: ignore[method-assign]
        open_session(*named, **options),
        gcp_lab.service.turn(lost_answers=1),
    )[0]
    with pytest.raises(CloudUnavailable, match="Cannot create object 't/file'"):
        objects.put_file("t/file", path)


def test_a_listing_that_tells_no_objects_is_an_answer_like_any_other(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
):
    objects.put("t/a", b"x")
    broken = [{"items": [{"name": "t/a"}]}]
    answer = module.answer_of
    monkeypatch.setattr(module, "answer_of", lambda told: broken.pop() if broken else answer(told))
    assert [item.key for item in objects.list("t/")] == ["t/a"]
    assert not broken


def test_an_encryption_key_of_ones_own_is_on_every_way_of_writing(gcp_lab: GcpLab):
    objects = Objects(gcp_lab.account("run-1", kms_key=KMS_KEY))
    part = objects.put("t/a", bytes(10))
    session = objects.open_session("t/b")
    sent = objects.put_chunk(session, 0, b"b", 1, "t/b")
    joined = objects.compose("t/c", [(part.key, part.generation)])
    assert isinstance(sent, ObjectFacts)
    assert all(item.kms_key.startswith(KMS_KEY) for item in (part, sent, joined))


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("storage.objects.create", lambda objects: objects.put("t/a", b"")),
        ("storage.objects.get", lambda objects: objects.get("t/a")),
        ("storage.objects.list", lambda objects: list(objects.list("t/"))),
        ("storage.objects.delete", lambda objects: objects.delete("t/a")),
    ],
)
def test_a_permission_that_is_missing_is_named(
    gcp_lab: GcpLab, objects: Objects, permission: str, call: Any
):
    objects.put("t/a", b"")
    gcp_lab.service.turn(denied=[permission])
    with pytest.raises(PermissionMissing, match=permission) as caught:
        call(objects)
    assert caught.value.fields["action"] == permission


def test_being_too_fast_is_throttling(gcp_lab: GcpLab, objects: Objects):
    gcp_lab.service.turn(requests_per_second=1.0)
    with pytest.raises(CloudThrottled):
        _ask_often(objects)


def _ask_often(objects: Objects) -> None:
    for _ in range(20):
        objects.stat("t/a")


def test_a_bucket_that_does_not_exist_is_a_setting_to_correct(gcp_lab: GcpLab):
    objects = Objects(gcp_lab.account("run-1", bucket="another-one"))
    with pytest.raises(CloudRefused) as caught:
        objects.put("t/a", b"")
    assert "bucket" in caught.value.hint


def test_a_token_is_never_shown_to_another_machine_over_plain_http(gcp_lab: GcpLab):
    elsewhere = gcp_lab.settings(endpoint_url="http://storage.example.com")
    clients = GcpClients(elsewhere, gcp_lab.connections.credentials)
    account = gcp_lab.account("run-1", endpoint_url="http://storage.example.com")
    account.clients = clients
    with pytest.raises(InputError, match="found plain http, needed https"):
        Objects(account).get("t/a")
    clients.close()


def test_the_url_of_an_upload_session_is_in_no_message(gcp_lab: GcpLab, objects: Objects):
    session = objects.open_session("t/long")
    secret = session.partition("upload_id=")[2].split("&")[0]
    gcp_lab.service.turn(lost_answers=1)
    with pytest.raises(CloudUnavailable) as caught:
        objects.put_chunk(session, 0, bytes(PART), None, "t/long")
    assert secret
    assert secret not in f"{caught.value!s}{caught.value!r}{caught.value.__cause__!r}"


def test_the_url_of_an_upload_session_is_in_no_log(
    debug_log: pytest.LogCaptureFixture, objects: Objects
):
    session = objects.open_session("t/long")
    objects.put_chunk(session, 0, b"x", 1, "t/long")
    secret = session.partition("upload_id=")[2].split("&")[0]
    told = repr([vars(record) for record in debug_log.records])
    assert "google.auth.transport.requests" in told
    assert secret not in told + debug_log.text
