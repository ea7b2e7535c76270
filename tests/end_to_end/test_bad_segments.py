"""What goes wrong between a bucket of Google's and a vDisk store: named, and nothing published."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.deflated_block import deflate
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_index import index_key, index_of
from imageport.clouds.gcp.segments import segment_key
from imageport.clouds.sweep import sweep
from imageport.errors import CloudRefused, PermissionMissing, ResourceGone, VerificationFailed
from imageport.model import BLOCK_BYTES, GenerationRole
from imageport.progress import Event, EventKind
from imageport.state.records import Generation
from imageport.workflow.facts import source_facts
from imageport.workflow.generations import generation_id
from imageport.workflow.place import Workplace
from imageport.workflow.publish import publish
from imageport.workflow.upload import upload
from tests.end_to_end.conftest import make_small_disk
from tests.end_to_end.lab_clouds import SITE
from tests.end_to_end.laboratory import Laboratory, open_laboratory
from tests.end_to_end.test_bad_input import clear

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WRITE, READ = "storage.objects.create", "storage.objects.get"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    root: Path = tmp_path_factory.mktemp("segments")
    with open_laboratory(root, make_small_disk, "gcp") as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_half_made(lab: Laboratory) -> Iterator[None]:
    """After every test: what the catalogue has lies in the cloud, and no half file in the store."""
    yield
    lab.turn(denied=[])
    place = lab.place("look")
    kept = {item.handle["snapshot_id"] for item in place.state.catalogue.list()}
    assert {resource.id for resource in place.cloud.list_ours(SITE)} == kept
    assert not list(lab.share("target-store").glob("*.part"))


def account_of(place: Workplace) -> GcpAccount:
    cloud: Any = place.cloud
    account: GcpAccount = cloud._account
    return account


def rights_end(lab: Laboratory, permission: str, place: Workplace) -> Workplace:
    """Return a place whose credentials lose a right when the first bytes have gone over."""

    def watch(event: Event) -> None:
        if event.kind is EventKind.ADVANCED:
            lab.turn(denied=[permission])

    return replace(place, events=watch)


def brought(lab: Laboratory, place: Workplace) -> Generation:
    store = lab.store("source-store")
    return upload(place, store, "gold", source_key=source_facts(store, "gold").source_key)


def test_an_upload_whose_credentials_lose_their_rights_half_way_is_left_to_the_sweep(
    lab: Laboratory,
):
    with pytest.raises(PermissionMissing) as caught:
        brought(lab, rights_end(lab, WRITE, lab.place("revoked")))
    clear(caught.value, "permission-missing", WRITE)
    lab.turn(denied=[])
    # To collect segments is to write down that one collects, which could not be done any more.
    place, now = lab.place("sweep"), datetime.now(UTC)
    [entry] = place.state.ledger.open_entries()
    swept = sweep(place.cloud, place.state, SITE, now, run="revoked")
    assert [resource.id for resource in swept] == [entry.resource_id]
    assert place.state.ledger.open_entries() == []
    assert Objects(account_of(place)).stat(entry.resource_id.split("/", 3)[3]) is None


@pytest.fixture
def prepared(lab: Laboratory) -> Generation:
    """The upload taken for a prepared generation: what is published is not the point here."""
    place = lab.place("run-1")
    uploaded = brought(lab, place)
    found = place.state.catalogue.latest("gold", place.target, GenerationRole.PREPARED)
    if found is not None:
        return found
    made = replace(
        uploaded, id=generation_id(GenerationRole.PREPARED, "gold"), role=GenerationRole.PREPARED
    )
    place.state.catalogue.add(made)
    return made


@contextmanager
def changed(place: Workplace, key: str, data: bytes | None) -> Iterator[None]:
    """Delete an object, or replace what it holds, for a while."""
    objects = Objects(account_of(place))
    before = objects.get(key)
    objects.delete(key)
    if data is not None:
        objects.put(key, data)
    yield
    objects.put(key, before)


def a_segment(place: Workplace, generation: Generation) -> tuple[int, str]:
    """Return a block of the image, the first with its content, and the key of its object."""
    account = account_of(place)
    blocks = list(index_of(account, generation.handle["snapshot_id"]).blocks())
    wanted = blocks[40][1]
    first = next(index for index, digest in blocks if digest == wanted)
    return first, segment_key(account.settings, wanted)


@pytest.mark.parametrize(
    ("data", "error", "code", "words"),
    [
        (None, ResourceGone, "resource-gone", "the object was deleted"),
        (
            deflate(b"\x07" * BLOCK_BYTES),
            VerificationFailed,
            "verification-failed",
            "found other data than its SHA-256 says",
        ),
    ],
)
def test_a_segment_that_is_lost_or_another_is_named_and_nothing_is_published(
    lab: Laboratory, prepared: Generation, data: bytes | None, error: Any, code: str, words: str
):
    place = lab.place("reader")
    index, key = a_segment(place, prepared)
    with changed(place, key, data), pytest.raises(error) as caught:
        publish(place, prepared.id, lab.store("target-store"), "gold")
    clear(caught.value, code, f"/{index} in {key}", words)
    assert not list(lab.share("target-store").glob("gold*"))
    assert place.state.catalogue.get(prepared.id) == prepared


def test_a_bucket_that_is_gone_is_named_and_no_image_is_forgotten(
    lab: Laboratory, prepared: Generation
):
    place = lab.place("elsewhere", bucket="imageport-nowhere")
    with pytest.raises(CloudRefused) as caught:
        publish(place, prepared.id, lab.store("target-store"), "gold")
    clear(caught.value, "cloud-refused", "bucket does not exist")
    assert "Check bucket and project" in caught.value.hint
    assert place.state.catalogue.get(prepared.id) == prepared


def test_a_publication_whose_credentials_lose_their_rights_half_way_goes_on_with_them(
    lab: Laboratory, prepared: Generation
):
    place, store = lab.place("revoked"), lab.store("target-store")
    with pytest.raises(PermissionMissing) as caught:
        publish(rights_end(lab, READ, place), prepared.id, store, "gold")
    clear(caught.value, "permission-missing", READ)
    assert not list(lab.share("target-store").glob("gold*"))
    lab.turn(denied=[])
    assert publish(place, prepared.id, store, "gold").file_name == "gold.vhdx"


def test_an_image_without_its_index_is_forgotten_and_brought_again(
    lab: Laboratory, prepared: Generation
):
    place = lab.place("reader")
    account = account_of(place)
    image = prepared.handle["snapshot_id"]
    key = index_key(account.settings, account.own(image, "images").name)
    Objects(account).delete(key)
    with pytest.raises(ResourceGone) as caught:
        publish(place, prepared.id, lab.store("target-store"), "other")
    clear(caught.value, "resource-gone", prepared.id)
    assert not list(lab.share("target-store").glob("other*"))
    again = brought(lab, lab.place("again"))
    assert again.handle["snapshot_id"] != image
    assert place.cloud.exists(again.handle["snapshot_id"])
    place.cloud.delete_snapshot(image)
