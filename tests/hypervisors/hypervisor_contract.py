"""What every hypervisor promises; one suite over all implementations.

A test module subclasses `HypervisorContract` and gives it the fixture ``lab``.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable

import pytest

from imageport.cloud import PermissionGap
from imageport.errors import (
    ExportInterrupted,
    HypervisorError,
    HypervisorRefused,
    InputError,
    VmMissing,
)
from imageport.formats.disk_stream import DiskStream
from imageport.hypervisor import OWN_PREFIX, FrozenDisk, Hypervisor
from imageport.model import MIB, ExtentState

SNAPSHOT = f"{OWN_PREFIX}gold-1"
NEXT_SNAPSHOT = f"{OWN_PREFIX}gold-2"
FOREIGN = "before the summer"


class HypervisorLab(ABC):
    """A hypervisor with two machines of which one is watched; every test gets it fresh."""

    path: str
    """Inventory path of the machine that is exported; its last part is in no other path."""
    twin_name: str
    """A name that two other machines have."""
    secret: str
    """The password: no text of ours may hold it."""

    @abstractmethod
    def connect(self) -> Hypervisor:
        """Return a new connection; the test closes it."""

    @abstractmethod
    def content(self) -> bytes:
        """Return what the machine's boot disk holds now: several MiB, data and holes."""

    @abstractmethod
    def write(self, offset_bytes: int, data: bytes) -> None:
        """Write to the boot disk as the guest would."""

    @abstractmethod
    def take_foreign_snapshot(self, name: str) -> None:
        """Take a snapshot that is not ours."""

    @abstractmethod
    def snapshot_names(self) -> list[str]:
        """Return the snapshots' names as the other side has them."""

    @abstractmethod
    def exports_under_way(self) -> int:
        """Return how many exports (leases, tasks) the other side has open."""

    @abstractmethod
    def forget_snapshot(self, name: str) -> None:
        """Remove a snapshot behind our back."""

    @abstractmethod
    def take_privilege_away(self) -> str:
        """Forbid the user what an export needs, and return what a gap calls it."""

    @abstractmethod
    def cut_next_stream(self, after_bytes: int) -> None:
        """Let the next stream break after so many bytes on the wire."""


def received(stream: DiskStream, base: bytes = b"") -> bytes:
    """Read a stream to its end, on top of ``base``, and close it."""
    with stream:
        disk = bytearray(base or bytes(stream.size_bytes))
        end = 0
        for offset, data in stream.pieces():
            assert offset >= end
            assert 0 < len(data) <= MIB
            end = offset + len(data)
            disk[offset:end] = data
        assert stream.finish()
    assert len(disk) == stream.size_bytes
    return bytes(disk)


def fail_halfway(stream: DiskStream) -> None:
    with stream:
        next(stream.pieces())
        raise RuntimeError("no room")


def covered(areas: Iterable[tuple[int, int]], offset: int, length: int) -> bool:
    return any(at <= offset and offset + length <= at + count for at, count in areas)


class HypervisorContract:
    """Tests that call nothing but the interface."""

    def freeze(self, link: Hypervisor, lab: HypervisorLab, name: str = SNAPSHOT) -> FrozenDisk:
        vm = link.find_vm(lab.path)
        return link.freeze(vm, link.take_snapshot(vm, name), vm.disk())

    def test_it_says_what_it_is_and_logs_out_twice(self, lab: HypervisorLab):
        link = lab.connect()
        assert link.product()
        link.close()
        link.close()

    def test_a_machine_is_found_by_path_and_by_name(self, lab: HypervisorLab):
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            assert vm.location == lab.path
            assert vm.name == lab.path.rsplit("/", 1)[-1]
            assert vm.firmware in {"efi", "bios"}
            assert link.find_vm(vm.name) == vm

    def test_a_machine_that_is_missing_is_said_to_be(self, lab: HypervisorLab):
        with lab.connect() as link:
            for path in ("nobody", lab.path + "x", lab.path + "/below"):
                with pytest.raises(VmMissing, match="Cannot find"):
                    link.find_vm(path)

    def test_a_name_that_two_machines_have_is_refused_with_their_places(self, lab: HypervisorLab):
        with lab.connect() as link, pytest.raises(InputError, match=lab.twin_name) as caught:
            link.find_vm(lab.twin_name)
        assert caught.value.message.count(lab.twin_name) >= 2

    def test_one_disk_is_the_boot_disk(self, lab: HypervisorLab):
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
        boot = vm.disk()
        assert [disk for disk in vm.disks if disk.is_boot] == [boot]
        assert boot.size_bytes == len(lab.content())
        assert vm.disk(boot.key) == vm.disk(boot.label) == boot
        with pytest.raises(VmMissing, match=boot.label):
            vm.disk("no such disk")

    def test_a_snapshot_is_taken_once_however_often_it_is_asked_for(self, lab: HypervisorLab):
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            taken = link.take_snapshot(vm, SNAPSHOT)
            assert taken.is_ours
            assert link.take_snapshot(vm, SNAPSHOT).id == taken.id
            assert link.find_vm(lab.path).snapshot(SNAPSHOT) == taken
        assert lab.snapshot_names() == [SNAPSHOT]

    def test_a_snapshot_is_removed_once_however_often_it_is_asked_for(self, lab: HypervisorLab):
        lab.take_foreign_snapshot(FOREIGN)
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            taken = link.take_snapshot(vm, SNAPSHOT)
            link.remove_snapshot(vm, taken)
            link.remove_snapshot(vm, taken)
        assert lab.snapshot_names() == [FOREIGN]

    def test_a_snapshot_of_somebody_else_is_neither_made_nor_removed(self, lab: HypervisorLab):
        lab.take_foreign_snapshot(FOREIGN)
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            with pytest.raises(InputError, match=FOREIGN):
                link.remove_snapshot(vm, vm.snapshot(FOREIGN))
            with pytest.raises(InputError, match="Bad snapshot name"):
                link.take_snapshot(vm, "mine")
        assert lab.snapshot_names() == [FOREIGN]

    def test_what_is_frozen_has_one_key_for_one_content(self, lab: HypervisorLab):
        with lab.connect() as link:
            first = self.freeze(link, lab)
            assert first.hypervisor_id
            assert first.size_bytes == len(lab.content())
            assert self.freeze(link, lab).key == first.key
            assert self.freeze(link, lab, NEXT_SNAPSHOT).key != first.key

    def test_a_snapshot_that_is_gone_cannot_be_frozen(self, lab: HypervisorLab):
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            taken = link.take_snapshot(vm, SNAPSHOT)
            link.remove_snapshot(vm, taken)
            with pytest.raises(VmMissing, match=SNAPSHOT):
                link.freeze(vm, taken, vm.disk())

    def test_a_stream_is_the_disk_as_it_was_frozen(self, lab: HypervisorLab):
        before = lab.content()
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            lab.write(0, b"written after the snapshot")
            assert received(link.open_stream(frozen)) == before
        assert lab.exports_under_way() == 0

    def test_a_snapshot_of_somebody_else_is_exported_and_stays(self, lab: HypervisorLab):
        before = lab.content()
        lab.take_foreign_snapshot(FOREIGN)
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            frozen = link.freeze(vm, vm.snapshot(FOREIGN), vm.disk())
            assert received(link.open_stream(frozen)) == before
        assert lab.snapshot_names() == [FOREIGN]

    def test_a_stream_that_is_closed_early_leaves_nothing(self, lab: HypervisorLab):
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            link.open_stream(frozen).close()
            assert lab.exports_under_way() == 0
            stream = link.open_stream(frozen)
            assert lab.exports_under_way() == 1
            next(stream.pieces())
            stream.close()
            stream.close()
            assert lab.exports_under_way() == 0

    def test_a_consumer_that_fails_leaves_nothing(self, lab: HypervisorLab):
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            with pytest.raises(RuntimeError, match="no room"):
                fail_halfway(link.open_stream(frozen))
        assert lab.exports_under_way() == 0

    def test_a_stream_that_is_cut_is_interrupted_and_the_next_one_is_whole(
        self, lab: HypervisorLab
    ):
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            lab.cut_next_stream(100_000)
            with pytest.raises(ExportInterrupted) as caught:
                received(link.open_stream(frozen))
            assert caught.value.retryable
            assert lab.exports_under_way() == 0
            assert received(link.open_stream(frozen)) == lab.content()
        assert lab.exports_under_way() == 0

    def test_a_snapshot_that_goes_before_the_stream_begins_is_missing(self, lab: HypervisorLab):
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            lab.forget_snapshot(SNAPSHOT)
            with pytest.raises((VmMissing, ExportInterrupted)):
                received(link.open_stream(frozen))
        assert lab.exports_under_way() == 0

    def test_two_threads_export_at_once(self, lab: HypervisorLab):
        whole = lab.content()
        results: list[bytes] = []
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            threads = [
                threading.Thread(target=lambda: results.append(received(link.open_stream(frozen))))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert results == [whole, whole]
        assert lab.exports_under_way() == 0

    def test_ranges_are_the_disk_as_it_was_frozen(self, lab: HypervisorLab):
        before = lab.content()
        with lab.connect() as link:
            if not link.traits.ranges:
                pytest.skip("this platform has no ranges")
            frozen = self.freeze(link, lab)
            lab.write(0, b"written after the snapshot")
            with link.open_ranges(frozen) as disk:
                assert disk.size_bytes == len(before)
                assert disk.read_at(12345, 70_000) == before[12345:82345]
                extents = list(disk.extents())
                assert sum(extent.length_bytes for extent in extents) == len(before)
                for extent in extents:
                    if extent.state is not ExtentState.DATA:
                        assert not any(before[extent.offset_bytes : extent.end_bytes])
                wanted = [(0, 3 * MIB + 512), (4 * MIB, 4096), (len(before) - 512, 512)]
                pieces = list(disk.read_many(wanted))
                assert [offset for offset, _ in pieces] == sorted(offset for offset, _ in pieces)
                whole = b"".join(data for _, data in pieces)
                assert whole == b"".join(before[at : at + count] for at, count in wanted)
                with pytest.raises(InputError):
                    disk.read_at(len(before) - 10, 11)
                key = disk.content_key()
                disk.check_unchanged()
            with link.open_ranges(frozen) as again:
                assert again.content_key() == key
        assert lab.exports_under_way() == 0

    def test_changed_areas_hold_all_that_was_written_in_between(self, lab: HypervisorLab):
        with lab.connect() as link:
            if not link.traits.changed_areas:
                pytest.skip("this platform does not tell what changed")
            first = self.freeze(link, lab)
            before = lab.content()
            written = [(MIB + 77, 10), (3 * MIB, 200_000), (len(before) - 1024, 1024)]
            for offset, length in written:
                lab.write(offset, b"\xa5" * length)
            second = self.freeze(link, lab, NEXT_SNAPSHOT)
            lab.write(2 * MIB, b"later than both")
            areas = link.changed_areas(second, first.change_id)
            assert areas is not None
            end = 0
            for offset, length in areas:
                assert offset >= end
                assert length > 0
                end = offset + length
            assert end <= len(before)
            assert all(covered(areas, offset, length) for offset, length in written)
            assert sum(length for _, length in areas) < len(before) // 2
            assert link.changed_areas(second, second.change_id) == []
            assert link.changed_areas(second, "of another disk/1") is None

    def test_differences_on_top_of_the_earlier_disk_are_the_disk(self, lab: HypervisorLab):
        with lab.connect() as link:
            if not link.traits.differences:
                pytest.skip("this platform does not send differences")
            base = lab.content()
            first = self.freeze(link, lab)
            lab.write(2 * MIB + 5, b"\x5a" * 100_000)
            second = self.freeze(link, lab, NEXT_SNAPSHOT)
            assert received(link.open_stream(second, since=first), base) == lab.content()
            assert lab.exports_under_way() == 0
            lab.forget_snapshot(SNAPSHOT)
            with pytest.raises(HypervisorRefused):
                link.open_stream(second, since=first)
        assert lab.exports_under_way() == 0

    def test_an_export_goes_on_while_another_run_tidies_up_and_removes_its_own(
        self, lab: HypervisorLab
    ):
        with lab.connect() as link, lab.connect() as other:
            frozen, theirs = self.freeze(link, lab), self.freeze(other, lab, NEXT_SNAPSHOT)
            with link.open_stream(frozen) as stream:
                other.tidy_up(theirs.vm)
                other.remove_snapshot(theirs.vm, theirs.snapshot)
                assert received(stream) == lab.content()
        assert lab.exports_under_way() == 0

    def test_every_privilege_is_there_or_named(self, lab: HypervisorLab):
        with lab.connect() as link:
            vm = link.find_vm(lab.path)
            assert not needed(link.check_permissions(vm, takes_snapshot=True))
            missing = lab.take_privilege_away()
            gaps = needed(link.check_permissions(vm, takes_snapshot=True))
            assert missing in {gap.action for gap in gaps}
            assert all(gap.needed_for and gap.found for gap in gaps)

    def test_nothing_is_left_to_tidy_up_after_an_export(self, lab: HypervisorLab):
        with lab.connect() as link:
            frozen = self.freeze(link, lab)
            received(link.open_stream(frozen))
            link.tidy_up(frozen.vm)
            assert lab.snapshot_names() == [SNAPSHOT]
            assert received(link.open_stream(frozen)) == lab.content()

    def test_no_text_holds_the_password(self, lab: HypervisorLab):
        with lab.connect() as link:
            texts = [repr(link), link.location, link.product(), repr(vars(link))]
            with pytest.raises(HypervisorError) as caught:
                link.find_vm("nobody")
            texts.append(str(caught.value))
        assert not [text for text in texts if lab.secret in text]


def needed(gaps: list[PermissionGap]) -> list[PermissionGap]:
    return [gap for gap in gaps if not gap.optional]
