"""What every cloud promises; one suite over all implementations.

A test module subclasses `CloudContract` and gives it the fixture ``lab``.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from imageport.cloud import Cloud, CloudDisk, CloudResource
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import (
    TAG_EXPIRES,
    TAG_ROLE,
    TAG_RUN,
    TAG_SITE,
    TAG_TOKEN,
)
from imageport.errors import CloudRefused, ImageportError, ResourceGone
from imageport.model import BLOCK_BYTES, GIB, ZERO_BLOCK, ExtentState, GenerationRole
from imageport.state.ledger import Ledger
from imageport.state.records import Generation
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from imageport.transfer.block_target import BlockTarget, TransferPlan

SITE = "frankfurt"
TOKEN = "t-1"
GUID = "5b6c1f0e-2b7e-4a53-9d62-0f6d4b4f2f11"


class Killed(BaseException):
    """Ends a call as SIGKILL would: nothing of ours handles it."""


class LedgerOfAKilledRun(Ledger):
    """Dies when an id is to be recorded: the resource exists, the ledger does not know its id."""

    def record(self, entry_id: str, resource_id: str) -> None:
        raise Killed(f"{entry_id} {resource_id}")


@dataclass(frozen=True)
class BadPlace:
    """A cloud with settings that do not fit it, and what has to be said about them."""

    cloud: Cloud
    subjects: frozenset[str]
    """Of every `PlaceProblem`, besides those of the image itself."""
    image: str = "g" * 300
    size_bytes: int = 70_000 * GIB


class CloudLab(ABC):
    """A cloud account with its state store, where runs come and go."""

    unwritten_reads_zero = False
    """Whether the service guarantees that what was never written reads as zeros."""
    handle_is_reference = True
    """Whether an upload keeps its id when it is committed."""
    gives_access = False
    """Whether reading and writing go through access that is given out and has to be taken back."""
    troubles: Mapping[str, Mapping[str, object]] = {}
    """Trouble by name (`tests.clouds.fault_contract`): the service's own knobs for it."""
    calm: Mapping[str, object] = {}
    """The same knobs without any trouble."""
    nowhere = "snap-00000000000000000"
    """A reference that is well-formed and of nothing."""

    def __init__(self) -> None:
        self.state = StateStore(MemoryFolder())

    def bad_place(self) -> BadPlace | None:
        """Return settings that do not fit the place; None where every place is good."""
        return None

    def turn(self, **knobs: object) -> None:
        """Make the service slow, refuse, fail, lose its answers: knobs are the service's own."""
        raise NotImplementedError(f"{type(self).__name__} has no knobs: {sorted(knobs)}")

    @contextlib.contextmanager
    def trouble(self, name: str) -> Iterator[None]:
        """Let the service have trouble for a while."""
        self.turn(**self.troubles[name])
        try:
            yield
        finally:
            self.turn(**self.calm)

    @abstractmethod
    def cloud(self, run: str, *, site: str = SITE, ledger: Ledger | None = None) -> Cloud:
        """Return the cloud for one run."""

    def killed(self, run: str) -> Cloud:
        """Return the cloud for a run that dies before it records anything."""
        return self.cloud(run, ledger=LedgerOfAKilledRun(self.state.folder))


def block(seed: int) -> bytes:
    """Return a block of bytes that no other seed gives."""
    return hashlib.sha256(seed.to_bytes(8, "big")).digest() * (BLOCK_BYTES // 32)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def plan_of(blocks: Mapping[int, bytes], size_bytes: int = GIB) -> TransferPlan:
    data = tuple(sorted(index for index, item in blocks.items() if item != ZERO_BLOCK))
    zero = tuple(sorted(index for index, item in blocks.items() if item == ZERO_BLOCK))
    return TransferPlan(size_bytes, data, zero, len(data) * BLOCK_BYTES)


def put_all(target: BlockTarget, blocks: Mapping[int, bytes]) -> None:
    for index, data in blocks.items():
        target.put(index, data, digest(data))


def uploaded(
    cloud: Cloud,
    blocks: Mapping[int, bytes],
    *,
    token: str = TOKEN,
    parent: str = "",
    unchanged: Mapping[int, bytes] | None = None,
) -> str:
    """Upload and return the reference; ``unchanged`` is what the parent holds already."""
    target = cloud.upload_target("gold", parent=parent)
    target.begin(plan_of(blocks), token)
    put_all(target, blocks)
    kept: Mapping[int, bytes] = {}
    if parent and not target.traits.starts_from_parent:
        kept = {index: data for index, data in (unchanged or {}).items() if data != ZERO_BLOCK}
        for index in kept:
            target.take_from_parent(index, 1)
    reference = target.commit({index: digest(data) for index, data in {**kept, **blocks}.items()})
    target.close()
    return reference


def generation(reference: str) -> Generation:
    return Generation(
        id="u-1", image="gold", target="t", role=GenerationRole.UPLOADED,
        created="2026-01-01T00:00:00+00:00", size_bytes=GIB, source_key="k", image_digest="",
        handle={"cloud": "x", "snapshot_id": reference},
    )  # fmt: skip


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def ids(resources: list[CloudResource]) -> set[str]:
    """Ids of all things; access to one of them is no thing of its own, and never to another."""
    found = {resource.id for resource in resources if resource.kind != "access"}
    for resource in resources:
        if resource.kind == "access":
            assert resource.id.removeprefix("access:") in found
    return found


def given_access(resources: list[CloudResource]) -> list[str]:
    return [resource.id for resource in resources if resource.kind == "access"]


def check_reference(lab: CloudLab, handle: str, reference: str) -> None:
    assert (reference == handle) is lab.handle_is_reference


BLOCKS = {0: block(0), 3: block(3), 4: ZERO_BLOCK, 2047: block(2047)}


class CloudContract:
    """The suite."""

    @pytest.fixture
    def lab(self) -> CloudLab:
        raise NotImplementedError

    # --- upload and read ------------------------------------------------------------------------

    def test_a_committed_upload_exists_and_reads_back_to_the_byte(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        target = cloud.upload_target("gold")
        handle = target.begin(plan_of(BLOCKS), TOKEN)
        assert not cloud.exists(handle)
        put_all(target, BLOCKS)
        reference = target.commit({index: digest(data) for index, data in BLOCKS.items()})
        assert cloud.exists(reference)
        assert dict(target.read_back([0, 1, 3, 4, 2047])) == {**BLOCKS, 1: ZERO_BLOCK}
        target.close()

    def test_a_snapshot_opens_as_a_disk_with_extents_of_what_was_put(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        with cloud.open_snapshot(uploaded(cloud, BLOCKS)) as disk:
            assert disk.size_bytes == GIB
            extents = list(disk.extents())
            data = [
                index
                for extent in extents
                if extent.state is ExtentState.DATA
                for index in range(
                    extent.offset_bytes // BLOCK_BYTES, extent.end_bytes // BLOCK_BYTES
                )
            ]
            if lab.unwritten_reads_zero:
                # A written zero and one that was never written are the same there.
                data = sorted({4, *data})
            assert data == [0, 3, 4, 2047]
            assert extents[0].offset_bytes == 0
            assert extents[-1].end_bytes == GIB
            for before, after in itertools.pairwise(extents):
                assert before.end_bytes == after.offset_bytes
                assert before.state is not after.state
            assert disk.read_at(4 * BLOCK_BYTES, BLOCK_BYTES) == ZERO_BLOCK
            assert disk.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]
            across = disk.read_at(BLOCK_BYTES - 5, 10)
            assert across == BLOCKS[0][-5:] + bytes(5)
            pieces = list(disk.read_many([(3 * BLOCK_BYTES - 7, 2 * BLOCK_BYTES)]))
            assert pieces[0][0] == 3 * BLOCK_BYTES - 7
            joined = b"".join(piece for _, piece in pieces)
            assert joined == bytes(7) + BLOCKS[3] + bytes(BLOCK_BYTES - 7)
            with pytest.raises(ImageportError):
                disk.read_at(GIB - 1, 2)

    def test_beginning_again_with_the_same_token_finds_the_same_target(self, lab: CloudLab):
        first = lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
        again = lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
        other = lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), "t-2")
        assert first == again
        assert other != first

    def test_beginning_again_after_a_kill_before_the_record_finds_the_same_target(
        self, lab: CloudLab
    ):
        with pytest.raises(Killed):
            lab.killed("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
        listed = lab.cloud("run-1").list_ours(SITE)
        made = ids(listed)
        assert len(listed) == 1
        assert {lab.cloud("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)} == made

    def test_a_killed_upload_goes_on_in_another_process(self, lab: CloudLab):
        target = lab.cloud("run-1").upload_target("gold")
        handle = target.begin(plan_of(BLOCKS), TOKEN)
        put_all(target, {0: BLOCKS[0], 3: BLOCKS[3]})
        cloud = lab.cloud("run-1")
        resumed = cloud.upload_target("gold")
        resumed.resume(plan_of(BLOCKS), handle)
        put_all(resumed, {index: BLOCKS[index] for index in (3, 4, 2047)})
        digests = {index: digest(data) for index, data in BLOCKS.items()}
        reference = resumed.commit(digests)
        check_reference(lab, handle, reference)
        # Killed between commit and record: the next process commits again.
        last = lab.cloud("run-1").upload_target("gold")
        last.resume(plan_of(BLOCKS), handle)
        assert last.commit(digests) == reference
        assert dict(last.read_back([0, 3])) == {0: BLOCKS[0], 3: BLOCKS[3]}
        for each in (target, resumed, last):
            each.close()

    def test_what_is_gone_cannot_be_resumed(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        target = cloud.upload_target("gold")
        handle = target.begin(plan_of(BLOCKS), TOKEN)
        target.abort()
        with pytest.raises(ResourceGone):
            cloud.upload_target("gold").resume(plan_of(BLOCKS), handle)

    def test_an_aborted_upload_leaves_nothing(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        target = cloud.upload_target("gold")
        target.begin(plan_of(BLOCKS), TOKEN)
        put_all(target, BLOCKS)
        target.abort()
        target.abort()
        assert cloud.list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []

    def test_an_abort_never_removes_a_committed_upload(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        target = cloud.upload_target("gold")
        handle = target.begin(plan_of(BLOCKS), TOKEN)
        put_all(target, BLOCKS)
        reference = target.commit({index: digest(data) for index, data in BLOCKS.items()})
        target.abort()
        other = lab.cloud("run-1").upload_target("gold")
        other.resume(plan_of(BLOCKS), handle)
        other.abort()
        assert cloud.exists(reference)

    def test_a_wrong_digest_is_refused(self, lab: CloudLab):
        target = lab.cloud("run-1").upload_target("gold")
        target.begin(plan_of(BLOCKS), TOKEN)
        with pytest.raises(CloudRefused):
            target.put(0, BLOCKS[0], digest(b"another"))

    def test_a_commit_that_counts_other_blocks_than_were_put_is_refused(self, lab: CloudLab):
        target = lab.cloud("run-1").upload_target("gold")
        target.begin(plan_of(BLOCKS), TOKEN)
        put_all(target, BLOCKS)
        with pytest.raises(CloudRefused):
            target.commit({0: digest(BLOCKS[0])})

    def test_a_child_shows_its_parent_except_where_it_was_written(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        parent = uploaded(cloud, BLOCKS)
        changed = {3: block(33), 2047: ZERO_BLOCK, 9: block(9)}
        unchanged = {index: data for index, data in BLOCKS.items() if index not in changed}
        child = uploaded(cloud, changed, token="t-2", parent=parent, unchanged=unchanged)
        with cloud.open_snapshot(child) as disk:
            for index, data in {**BLOCKS, **changed}.items():
                assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == data
        with cloud.open_snapshot(parent) as disk:
            assert disk.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]

    def test_unwritten_blocks_are_declared_zero_only_where_the_service_guarantees_it(
        self, lab: CloudLab
    ):
        traits = lab.cloud("run-1").upload_target("gold").traits
        assert traits.unwritten_reads_zero is lab.unwritten_reads_zero

    # --- disks and snapshots --------------------------------------------------------------------

    def test_a_disk_is_made_once_for_a_run_and_anew_after_it_was_deleted(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        disk = cloud.make_disk(reference, GUID)
        assert (disk.size_bytes, disk.disk_guid) == (GIB, GUID)
        assert lab.cloud("run-1").make_disk(reference, GUID) == disk
        cloud.delete_disk(disk)
        cloud.delete_disk(disk)
        assert cloud.make_disk(reference, GUID).id != disk.id

    def test_two_runs_never_share_a_disk(self, lab: CloudLab):
        reference = uploaded(lab.cloud("run-1"), BLOCKS)
        first = lab.cloud("run-1").make_disk(reference, GUID)
        assert lab.cloud("run-2").make_disk(reference, GUID).id != first.id

    def test_a_snapshot_of_a_disk_holds_what_the_disk_held(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        disk = cloud.make_disk(uploaded(cloud, BLOCKS), GUID)
        reference = cloud.snapshot(disk, "gold P")
        assert cloud.exists(reference)
        assert lab.cloud("run-1").snapshot(disk, "gold P") == reference
        with cloud.open_snapshot(reference) as opened:
            assert opened.read_at(0, BLOCK_BYTES) == BLOCKS[0]
            assert opened.read_at(2047 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[2047]

    def test_a_deleted_snapshot_is_gone_for_every_use(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        opened = cloud.open_snapshot(reference)
        opened.check_unchanged()
        cloud.delete_snapshot(reference)
        cloud.delete_snapshot(reference)
        assert not cloud.exists(reference)
        with pytest.raises(ResourceGone):
            opened.check_unchanged()
        opened.close()
        with pytest.raises(ResourceGone):
            cloud.open_snapshot(reference)
        with pytest.raises(ResourceGone):
            cloud.make_disk(reference, GUID)
        assert not cloud.exists(lab.nowhere)
        assert not cloud.exists("of another cloud")

    # --- tags, ledger, sweep --------------------------------------------------------------------

    def test_everything_made_carries_site_run_role_expiry_and_is_in_the_ledger(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        disk = cloud.make_disk(reference, GUID)
        found = {item.id: item for item in cloud.list_ours(SITE)}
        assert set(found) == {reference, disk.id}  # and nobody has access any more
        for resource in found.values():
            assert resource.tags[TAG_SITE] == SITE
            assert resource.tags[TAG_RUN] == "run-1"
            assert resource.tags[TAG_ROLE]
            assert datetime.fromisoformat(resource.tags[TAG_EXPIRES]) > in_days(0)
        entries = {entry.resource_id: entry for entry in lab.state.ledger.open_entries()}
        assert set(entries) == set(found)
        for entry in entries.values():
            assert entry.token.startswith(cloud.scope + "/")
            assert entry.token == found[entry.resource_id].tags[TAG_TOKEN]

    def test_a_site_sees_and_deletes_only_its_own(self, lab: CloudLab):
        ours = uploaded(lab.cloud("run-1"), BLOCKS)
        foreign = lab.cloud("run-2", site="paris")
        assert foreign.list_ours("paris") == []
        (resource,) = lab.cloud("run-1").list_ours(SITE)
        with pytest.raises(CloudRefused):
            foreign.delete_resource(resource)
        assert lab.cloud("run-1").exists(ours)

    def test_a_sweep_leaves_alone_what_is_not_expired(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        uploaded(cloud, BLOCKS)
        assert sweep(cloud, lab.state, SITE, in_days(0)) == []
        assert len(cloud.list_ours(SITE)) == 1

    def test_a_sweep_past_expiry_leaves_nothing_and_says_what_it_deleted(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        disk = cloud.make_disk(reference, GUID)
        pending = cloud.upload_target("gold").begin(plan_of(BLOCKS), "t-9")
        sweeper = lab.cloud("sweep")
        planned = sweep(sweeper, lab.state, SITE, in_days(2), dry_run=True)
        assert ids(planned) == {reference, disk.id, pending}
        assert ids(cloud.list_ours(SITE)) == {reference, disk.id, pending}
        assert ids(sweep(sweeper, lab.state, SITE, in_days(2))) == {reference, disk.id, pending}
        assert cloud.list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []
        assert sweep(sweeper, lab.state, SITE, in_days(2)) == []

    def test_a_sweep_spares_what_the_catalogue_names_and_takes_it_off_the_ledger(
        self, lab: CloudLab
    ):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        # Killed between the catalogue's entry and the ledger's mark.
        lab.state.catalogue.add(generation(reference))
        assert sweep(cloud, lab.state, SITE, in_days(400)) == []
        assert cloud.exists(reference)
        assert lab.state.ledger.open_entries() == []
        assert sweep(cloud, lab.state, SITE, in_days(400)) == []
        assert cloud.exists(reference)

    def test_a_sweep_with_the_wrong_state_store_spares_finished_images(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        disk = cloud.make_disk(reference, GUID)
        empty = StateStore(MemoryFolder())
        assert ids(sweep(cloud, empty, SITE, in_days(400))) == {disk.id}
        assert cloud.exists(reference)

    def test_a_sweep_spares_a_run_that_holds_a_lease_however_late(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        with lab.state.lease("gold@t", "run-1", 60.0):
            assert sweep(cloud, lab.state, SITE, in_days(400)) == []
            assert sweep(cloud, lab.state, SITE, in_days(0), run="run-1") == []
        assert ids(sweep(cloud, lab.state, SITE, in_days(0), run="run-1")) == {reference}

    def test_a_sweep_of_one_ended_run_touches_no_other_run(self, lab: CloudLab):
        first = uploaded(lab.cloud("run-1"), BLOCKS, token="t-1")
        second = uploaded(lab.cloud("run-2"), BLOCKS, token="t-2")
        sweeper = lab.cloud("sweep")
        assert ids(sweep(sweeper, lab.state, SITE, in_days(0), run="run-1")) == {first}
        assert sweeper.exists(second)

    def test_a_sweep_never_touches_another_site(self, lab: CloudLab):
        paris = lab.cloud("run-1", site="paris")
        theirs = uploaded(paris, BLOCKS)
        assert sweep(lab.cloud("sweep"), lab.state, SITE, in_days(400)) == []
        assert paris.exists(theirs)

    def test_what_was_made_but_never_recorded_is_swept(self, lab: CloudLab):
        with pytest.raises(Killed):
            lab.killed("run-1").upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
        reference = uploaded(lab.cloud("run-0"), BLOCKS, token="t-0")
        lab.state.catalogue.add(generation(reference))
        with pytest.raises(Killed):
            lab.killed("run-1").make_disk(reference, GUID)
        cloud = lab.cloud("run-2")
        assert len(ids(cloud.list_ours(SITE))) == 3
        assert len(ids(sweep(cloud, lab.state, SITE, in_days(2)))) == 2
        assert ids(cloud.list_ours(SITE)) == {reference}
        assert lab.state.ledger.open_entries() == []

    def test_an_intent_that_came_to_nothing_is_closed_by_the_sweep(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        with contextlib.suppress(ImageportError):
            cloud.make_disk(lab.nowhere, GUID)
        lab.state.ledger.intend("volume", f"{cloud.scope}/x", "run-1", SITE, 60.0)
        elsewhere = lab.state.ledger.intend("volume", "other/region/x", "run-1", SITE, 60.0)
        assert sweep(cloud, lab.state, SITE, in_days(2)) == []
        assert [entry.id for entry in lab.state.ledger.open_entries()] == [elsewhere.id]

    def test_a_run_that_takes_up_an_upload_owns_it(self, lab: CloudLab):
        first = lab.cloud("run-1")
        handle = first.upload_target("gold").begin(plan_of(BLOCKS), TOKEN)
        second = lab.cloud("run-2")
        assert second.upload_target("gold").begin(plan_of(BLOCKS), TOKEN) == handle
        # The janitor cleans up after run-1 while run-2 writes.
        with lab.state.lease("gold@t", "run-2", 60.0):
            assert sweep(first, lab.state, SITE, in_days(0), run="run-1") == []
        assert ids(sweep(first, lab.state, SITE, in_days(0), run="run-2")) == {handle}

    # --- access that was given out --------------------------------------------------------------

    def test_nobody_has_access_once_readers_and_uploads_are_closed(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        with cloud.open_snapshot(reference) as disk:
            assert disk.read_at(0, BLOCK_BYTES) == BLOCKS[0]
            assert bool(given_access(cloud.list_ours(SITE))) is lab.gives_access
        target = cloud.upload_target("gold")
        target.begin(plan_of(BLOCKS), "t-2")
        target.abort()
        assert given_access(cloud.list_ours(SITE)) == []
        assert {entry.kind for entry in lab.state.ledger.open_entries()} == {"snapshot"}

    @pytest.mark.parametrize("recorded", [True, False])
    def test_access_that_a_killed_reader_left_is_taken_back_and_the_catalogued_image_stays(
        self, lab: CloudLab, recorded: bool
    ):
        if not lab.gives_access:
            pytest.skip("this cloud gives nobody access")
        cloud = lab.cloud("run-1")
        reference = uploaded(cloud, BLOCKS)
        lab.state.catalogue.add(generation(reference))
        reader = (lab.cloud if recorded else lab.killed)("run-2").open_snapshot(reference)
        with contextlib.nullcontext() if recorded else pytest.raises(Killed):
            reader.read_at(0, BLOCK_BYTES)
        (access,) = given_access(cloud.list_ours(SITE))
        sweeper = lab.cloud("sweep")
        assert sweep(sweeper, lab.state, SITE, in_days(0)) == []
        with lab.state.lease("gold@t", "run-2", 60.0):
            assert sweep(sweeper, lab.state, SITE, in_days(400)) == []
        swept = sweep(sweeper, lab.state, SITE, in_days(0), run="run-2")
        assert [item.id for item in swept] == [access]
        assert given_access(cloud.list_ours(SITE)) == []
        assert sweeper.exists(reference)
        assert lab.state.ledger.open_entries() == []
        reader.close()

    def test_access_is_not_taken_from_a_living_reader_because_another_died(self, lab: CloudLab):
        if not lab.gives_access:
            pytest.skip("this cloud gives nobody access")
        reference = uploaded(lab.cloud("run-1"), BLOCKS)
        lab.state.catalogue.add(generation(reference))
        dead = lab.cloud("run-2").open_snapshot(reference)
        living = lab.cloud("run-3").open_snapshot(reference)
        for reader in (dead, living):
            reader.read_at(0, BLOCK_BYTES)
        with lab.state.lease("gold@t", "run-3", 60.0):
            assert sweep(lab.cloud("sweep"), lab.state, SITE, in_days(0), run="run-2") == []
            assert living.read_at(3 * BLOCK_BYTES, BLOCK_BYTES) == BLOCKS[3]
        living.close()
        dead.close()

    # --- the rest -------------------------------------------------------------------------------

    def test_a_good_place_has_no_problem(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        assert cloud.check_place("gold", 64 * GIB) == []
        assert cloud.list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []

    def test_everything_wrong_with_a_place_is_named_at_once(self, lab: CloudLab):
        bad = lab.bad_place()
        if bad is None:
            pytest.skip("every place is good here")
        found = bad.cloud.check_place(bad.image, bad.size_bytes)
        subjects = {problem.subject for problem in found}
        of_image = {item for item in subjects if f" of '{bad.image[:40]}" in item}
        assert sorted(item.split()[0] for item in of_image) == ["name", "size"]
        assert subjects - of_image == bad.subjects
        for problem in found:
            assert problem.found
            assert problem.needed
        assert lab.cloud("run-1").list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []

    def test_the_credentials_of_the_tests_may_do_everything(self, lab: CloudLab):
        assert lab.cloud("run-1").check_permissions() == []
        assert lab.cloud("run-1").list_ours(SITE) == []

    def test_an_estimate_never_falls_when_the_image_grows(self, lab: CloudLab):
        cloud = lab.cloud("run-1")
        costs = [
            sum(line.usd for line in cloud.estimate(size * GIB, 2 * size * GIB))
            for size in (1, 10, 100)
        ]
        assert costs == sorted(costs)


def disk_of(cloud: Cloud, blocks: Mapping[int, bytes] = BLOCKS) -> CloudDisk:
    """Upload and make a disk of it."""
    return cloud.make_disk(uploaded(cloud, blocks), GUID)
