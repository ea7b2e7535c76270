"""One suite over a local folder, a share and memory: what is recorded is found, by both sites."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imageport.errors import InputError, NameTaken, RecordMissing, StateError
from imageport.model import BLOCK_BYTES, GenerationRole
from imageport.state.record_folder import KEPT_STATES, LIMIT_BYTES, RecordFolder
from imageport.state.records import Generation, Publication
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.transfer.journal import JournalHeader
from imageport.transfer.manifest import Manifest

TARGET = "aws/eu-central-1/site-b"


def generation(number: int = 1, **changes: Any) -> Generation:
    return dataclasses.replace(
        Generation(
            id=f"gen-{number}",
            image="Win11-Office",
            target=TARGET,
            role=GenerationRole.UPLOADED,
            created=f"2026-01-{number:02}T08:00:00+00:00",
            size_bytes=64 << 30,
            source_key="key",
            image_digest="digest",
            handle={"snapshot_id": f"snap-{number}", "region": "eu-central-1"},
            parent_id="",
            details={"seconds": 1.5, "steps": ["a", {"b": None}], "note": "zażółć"},
        ),
        **changes,
    )


def publication(number: int = 1, **changes: Any) -> Publication:
    return dataclasses.replace(
        Publication("smb://b/store", f"win.{number}.vhdx", "2026-01-01", 5, 7, "digest"), **changes
    )


def test_opening_a_store_writes_nothing(store: StateStore, folder: Folder):
    assert store.catalogue.list() == []
    assert store.ledger.open_entries() == []
    assert store.manifests.get("none") is None
    assert folder.list() == []


def test_a_generation_is_found_by_the_other_site(store: StateStore, open_folder: Any):
    one = generation(publications=(publication(1), publication(2)), parent_id="gen-0")
    store.catalogue.add(one)
    assert StateStore(open_folder()).catalogue.get("gen-1") == one


def test_adding_the_same_generation_again_is_no_error_and_another_one_is(store: StateStore):
    store.catalogue.add(generation())
    store.catalogue.add(generation())
    with pytest.raises(StateError):
        store.catalogue.add(generation(image_digest="other"))
    assert store.catalogue.get("gen-1").image_digest == "digest"


def test_the_latest_generation_is_the_newest_of_image_target_and_role(store: StateStore):
    for number in (1, 3, 2):
        store.catalogue.add(generation(number))
    store.catalogue.add(generation(4, role=GenerationRole.PREPARED))
    store.catalogue.add(generation(5, target="aws/us-east-1/site-c"))
    store.catalogue.add(generation(6, image="Other"))
    found = store.catalogue.latest("win11-office", TARGET, GenerationRole.UPLOADED)
    assert found is not None
    assert found.id == "gen-3"
    assert store.catalogue.latest("unknown", TARGET, GenerationRole.UPLOADED) is None
    assert [item.id for item in store.catalogue.list(target=TARGET, image="Win11-Office")] == [
        "gen-1", "gen-2", "gen-3", "gen-4",
    ]  # fmt: skip


def test_a_missing_generation_is_named(store: StateStore):
    for call in (
        store.catalogue.get,
        store.catalogue.update,
        lambda name: store.catalogue.add_publication(name, publication()),
    ):
        with pytest.raises(RecordMissing, match="gen-9"):
            call("gen-9")


def test_an_update_changes_the_named_fields_only(store: StateStore):
    store.catalogue.add(generation())
    changed = store.catalogue.update("gen-1", details={"x": 1})
    assert changed == store.catalogue.get("gen-1") == generation(details={"x": 1})


def test_a_place_is_published_to_once_and_places_add_up(store: StateStore):
    store.catalogue.add(generation())
    store.catalogue.add_publication("gen-1", publication(1))
    store.catalogue.add_publication("gen-1", publication(2))
    store.catalogue.add_publication("gen-1", publication(1, size_bytes=9))
    assert store.catalogue.get("gen-1").publications == (
        publication(2),
        publication(1, size_bytes=9),
    )


def test_a_record_that_nobody_could_read_is_not_written(store: StateStore):
    store.catalogue.add(generation(1))
    with pytest.raises(StateError, match=f"needed at most {LIMIT_BYTES}"):
        store.catalogue.add(generation(2, details={"composed": "x" * LIMIT_BYTES}))
    assert [item.id for item in store.catalogue.list()] == ["gen-1"]


def test_a_record_keeps_text_that_is_no_unicode(store: StateStore):
    one = generation(details={"console": "a\ud800b"})
    store.catalogue.add(one)
    assert store.catalogue.get("gen-1") == one


def test_a_removed_generation_is_gone_and_may_be_added_again(store: StateStore):
    store.catalogue.add(generation())
    store.catalogue.remove("gen-1")
    store.catalogue.remove("gen-1")
    store.catalogue.remove("never")
    assert store.catalogue.list() == []
    with pytest.raises(RecordMissing):
        store.catalogue.get("gen-1")
    store.catalogue.add(generation(image_digest="second"))
    assert store.catalogue.get("gen-1").image_digest == "second"


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "a.b", "a b", "-a", "x" * 129, "a\0"])
def test_an_id_that_is_no_file_name_is_refused(store: StateStore, bad: str):
    with pytest.raises(InputError):
        store.catalogue.get(bad)


def test_two_sites_that_change_one_record_lose_nothing(store: StateStore, open_folder: Any):
    store.catalogue.add(generation())
    sites = [StateStore(open_folder()) for _site in range(4)]

    def publish(site: StateStore, first: int) -> None:
        for number in range(first, first + 6):
            site.catalogue.add_publication("gen-1", publication(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, sites, (0, 10, 20, 30)))
    found = {p.file_name for p in store.catalogue.get("gen-1").publications}
    assert found == {
        f"win.{first + number}.vhdx" for first in (0, 10, 20, 30) for number in range(6)
    }


def test_changes_leave_few_files(store: StateStore, folder: Folder):
    store.catalogue.add(generation())
    for number in range(20):
        store.catalogue.update("gen-1", details={"n": number})
    assert store.catalogue.get("gen-1").details == {"n": 19}
    assert len(folder.list("catalogue")) == KEPT_STATES


def test_a_writer_that_slept_through_many_changes_overwrites_nothing(folder: Folder):
    records = RecordFolder(folder, "things", "thing")
    old = records.create("a", {"n": 0})
    for number in range(1, KEPT_STATES + 2):
        records.update("a", lambda _stored, number=number: {"n": number})
        if number in {1, KEPT_STATES - 1, KEPT_STATES, KEPT_STATES + 1}:
            with pytest.raises(NameTaken):
                records.replace(old, {"n": -1})
            newest = records.read("a")
            assert newest is not None
            assert newest.document == {"n": number}


def test_an_intent_is_open_until_it_is_handed_over(store: StateStore, open_folder: Any):
    before = datetime.now(UTC)
    entry = store.ledger.intend("snapshot", "token", "run-1", "site-b", 600)
    assert entry.state == "intended"
    expires = datetime.fromisoformat(entry.expires)
    assert timedelta(seconds=598) < expires - before < timedelta(seconds=605)
    other = StateStore(open_folder()).ledger
    assert other.open_entries(run="run-1", site="site-b") == [entry]
    assert other.open_entries(run="run-2") == other.open_entries(site="x") == []
    store.ledger.record(entry.id, "snap-1")
    [created] = other.open_entries()
    assert (created.state, created.resource_id) == ("created", "snap-1")
    other.mark(entry.id, "released")
    assert store.ledger.open_entries() == []
    assert store.ledger.get(entry.id).resource_id == "snap-1"


def test_a_closed_entry_is_never_opened_again(store: StateStore):
    entry = store.ledger.intend("volume", "token", "run-1", "site-b", 600)
    store.ledger.mark(entry.id, "deleted")
    store.ledger.record(entry.id, "vol-1")
    store.ledger.mark(entry.id, "created")
    store.ledger.renew("run-1", 600)
    store.ledger.mark(entry.id, "released")
    assert store.ledger.open_entries() == []
    assert store.ledger.get(entry.id).state == "deleted"


def test_renewing_moves_the_expiry_of_one_run(store: StateStore):
    mine = store.ledger.intend("volume", "t1", "run-1", "site-b", 60)
    other = store.ledger.intend("volume", "t2", "run-2", "site-b", 60)
    store.ledger.renew("run-1", 6000)
    expires = {entry.id: entry.expires for entry in store.ledger.open_entries()}
    assert expires[other.id] == other.expires
    assert datetime.fromisoformat(expires[mine.id]) > datetime.now(UTC) + timedelta(seconds=5000)


def test_a_renewal_and_a_record_at_the_same_time_both_count(store: StateStore, open_folder: Any):
    entry = store.ledger.intend("volume", "t1", "run-1", "site-b", 60)
    other = StateStore(open_folder())
    with ThreadPoolExecutor(2) as pool:
        renewals = [pool.submit(other.ledger.renew, "run-1", 6000) for _number in range(5)]
        store.ledger.record(entry.id, "vol-1")
        for renewal in renewals:
            renewal.result()
    [found] = store.ledger.open_entries()
    assert found.resource_id == "vol-1"
    assert datetime.fromisoformat(found.expires) > datetime.now(UTC) + timedelta(seconds=5000)


def test_closed_entries_are_compacted_after_their_time(
    store: StateStore, folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    entry = store.ledger.intend("volume", "t1", "run-1", "site-b", 60)
    store.ledger.mark(entry.id, "deleted")
    store.ledger.open_entries()
    monkeypatch.setattr("imageport.state.ledger.KEEP_CLOSED", timedelta(seconds=-5))
    assert store.ledger.open_entries() == []
    assert folder.list("ledger") == []
    store.ledger.mark(entry.id, "deleted")


def test_an_unknown_ledger_state_is_refused(store: StateStore):
    entry = store.ledger.intend("volume", "t1", "run-1", "site-b", 60)
    with pytest.raises(InputError, match="lost"):
        store.ledger.mark(entry.id, "lost")


def test_a_manifest_is_kept_per_generation(store: StateStore, open_folder: Any):
    manifest = Manifest(100 * BLOCK_BYTES, absent_reads_zero=False)
    for index in range(0, 100, 3):
        manifest.set(index, hashlib.sha256(bytes([index])).digest())
    store.manifests.put("gen-1", manifest)
    other = StateStore(open_folder())
    assert other.manifests.get("gen-1") == manifest
    assert other.manifests.get("gen-2") is None
    manifest.set(1, bytes(32))
    store.manifests.put("gen-1", manifest)
    assert other.manifests.get("gen-1") == manifest
    other.manifests.delete("gen-1")
    other.manifests.delete("gen-1")
    assert store.manifests.get("gen-1") is None


def test_a_journal_is_resumed_by_another_process(store: StateStore, open_folder: Any):
    header = JournalHeader("run", "content", "token", "snap-1", 10 * BLOCK_BYTES)
    journal = store.journals.open("image@target")
    assert journal.load() is None
    journal.start(header)
    journal.add(3, bytes(32))
    journal.flush()
    journal.close()
    again = StateStore(open_folder()).journals.open("image@target")
    assert again.load() == header
    assert list(again.put) == [3]
    again.close()
    store.journals.delete("image@target")
    store.journals.delete("image@target")
    assert store.journals.keys() == []


DAMAGE = {
    "empty": b"",
    "no JSON": b"{",
    "another kind": b'{"schema": 1, "kind": "lease", "record": {}}',
    "a list": b"[]",
    "no record": b'{"schema": 1, "kind": "generation"}',
    "no fields": b'{"schema": 1, "kind": "generation", "record": {}}',
    "deep": b"[" * 100_000,
    "binary": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_record_is_named_and_not_dropped(store: StateStore, folder: Folder, what: str):
    store.catalogue.add(generation(1))
    store.catalogue.add(generation(2))
    name = "catalogue/gen-1.00000001.json"
    folder.write_bytes(name, DAMAGE[what])
    for call in (lambda: store.catalogue.get("gen-1"), store.catalogue.list):
        with pytest.raises(StateError, match="gen-1") as caught:
            call()
        assert caught.value.fields["files"] == [f"{folder.location}/{name}"]
    assert store.catalogue.get("gen-2") == generation(2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "X"), ("size_bytes", -1), ("size_bytes", "5"), ("size_bytes", True),
        ("handle", {"a": 1}), ("handle", []), ("image", None), ("id", "gen-7"),
        ("publications", [1]), ("publications", {}), ("publications", [{"store": "x"}]),
        ("image", "x" * 70_000), ("surprise", 1),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_is_named(
    store: StateStore, folder: Folder, field: str, value: object
):
    store.catalogue.add(generation(1))
    name = "catalogue/gen-1.00000001.json"
    envelope = json.loads(folder.read_bytes(name))
    envelope["record"][field] = value
    folder.write_bytes(name, json.dumps(envelope).encode())
    with pytest.raises(StateError, match="gen-1"):
        store.catalogue.get("gen-1")


def test_a_record_of_a_newer_release_says_so(store: StateStore, folder: Folder):
    store.catalogue.add(generation(1))
    name = "catalogue/gen-1.00000001.json"
    envelope = json.loads(folder.read_bytes(name)) | {"schema": 2}
    folder.write_bytes(name, json.dumps(envelope).encode())
    with pytest.raises(StateError, match="newer release"):
        store.catalogue.list()


def test_files_that_are_no_records_are_left_alone(store: StateStore, folder: Folder):
    store.catalogue.add(generation(1))
    folder.write_bytes("catalogue/readme.txt", b"hello")
    folder.write_bytes("catalogue/0123.part", b"half a rec")
    assert [item.id for item in store.catalogue.list()] == ["gen-1"]
    assert len(folder.list("catalogue")) == 3


def test_what_killed_writers_left_and_long_removed_records_are_tidied(folder: Folder):
    RecordFolder(folder, "things", "thing").create("a", {})
    records = RecordFolder(folder, "things", "thing")
    records.remove("a")
    folder.write_bytes("things/0123.part", b"half")
    folder.write_bytes("things/4567.part", b"half")
    long_ago = 1_600_000_000 * 10**9
    for entry in folder.list("things"):
        if not entry.name.startswith("4567"):
            folder.set_last_write(f"things/{entry.name}", long_ago)
    later = RecordFolder(folder, "things", "thing")
    later.create("b", {})
    assert [stored.id for stored in later.read_all()] == ["b"]
    assert [entry.name for entry in folder.list("things")] == ["4567.part", "b.00000001.json"]
