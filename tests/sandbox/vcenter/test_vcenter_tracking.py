"""Changed block tracking: answers in slices, for change ids of this very disk only."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.sandbox.vcenter.vcenter_lab import GOLD_BYTES, KEY, TWO_DISKS, VcenterLab, disk_of

BLOCK = 64 * 1024


def asked(lab: VcenterLab, snapshot: Any, since: str) -> tuple[list[tuple[int, int]], int]:
    """Ask to the end of the disk; return the areas and how many answers it took."""
    areas, at, answers = list[tuple[int, int]](), 0, 0
    while at < GOLD_BYTES:
        found = lab.vm().QueryChangedDiskAreas(
            snapshot=snapshot, deviceKey=KEY, startOffset=at, changeId=since
        )
        assert found.startOffset == at
        assert found.length > 0
        areas += [(area.start, area.length) for area in found.changedArea]
        at, answers = found.startOffset + found.length, answers + 1
    return areas, answers


def test_an_answer_speaks_for_a_slice_only(lab: VcenterLab):
    lab.service.turn(areas_per_answer=2)
    since = disk_of(lab.golden()).backing.changeId
    written = [0, 3, 4, 9, 700, 1280]
    for block in written:
        size = min(BLOCK, GOLD_BYTES - block * BLOCK)
        lab.service.guest_writes("gold", KEY, block * BLOCK, b"w" * size)
    later = lab.snapshot("later")
    areas, answers = asked(lab, later, since)
    assert areas == [
        (0, BLOCK), (3 * BLOCK, 2 * BLOCK), (9 * BLOCK, BLOCK),
        (700 * BLOCK, BLOCK), (1280 * BLOCK, 512),
    ]  # fmt: skip
    assert answers == 3
    assert asked(lab, later, disk_of(later).backing.changeId) == ([], 1)
    lab.remove(later)


def test_the_star_names_what_is_allocated(lab: VcenterLab):
    areas, _ = asked(lab, lab.golden(), "*")
    assert areas == [
        (0, 2 * BLOCK), (511 * BLOCK, 2 * BLOCK), (800 * BLOCK, 4 * BLOCK), (1280 * BLOCK, 512)
    ]  # fmt: skip


def refused(lab: VcenterLab, **other: Any) -> vmodl.fault.InvalidArgument:
    question = {"snapshot": lab.golden(), "deviceKey": KEY, "startOffset": 0, "changeId": "*"}
    with pytest.raises(vmodl.fault.InvalidArgument) as caught:
        lab.vm().QueryChangedDiskAreas(**{**question, **other})
    return caught.value


def test_what_the_disk_never_said_is_refused(lab: VcenterLab):
    golden = disk_of(lab.golden()).backing.changeId
    later = lab.snapshot("later")
    newer = disk_of(later).backing.changeId
    for wrong in ("", "made up", f"{golden.partition('/')[0]}/99", newer):
        assert refused(lab, changeId=wrong).invalidProperty == "changeId"
    lab.remove(later)
    for offset in (-1, GOLD_BYTES):
        assert refused(lab, startOffset=offset).invalidProperty == "startOffset"
    assert refused(lab, deviceKey=2005).invalidProperty == "deviceKey"


def test_a_disk_that_was_not_tracked_cannot_be_asked(lab: VcenterLab):
    snapshot = lab.snapshot("untracked", TWO_DISKS)
    assert disk_of(snapshot, 2001).backing.changeId is None
    with pytest.raises(vim.fault.FileFault):
        lab.vm(TWO_DISKS).QueryChangedDiskAreas(
            snapshot=snapshot, deviceKey=2001, startOffset=0, changeId="*"
        )
    lab.remove(snapshot)


def started_again(lab: VcenterLab) -> None:
    lab.service.stop()
    lab.service.start()
    lab.log_in_again()


def test_a_change_id_means_the_same_bytes_after_a_restart(own_lab: VcenterLab):
    first = disk_of(own_lab.golden()).backing.changeId
    started_again(own_lab)
    assert disk_of(own_lab.golden()).backing.changeId == first
    own_lab.service.guest_writes("gold", KEY, 0, b"lost with the delta")
    started_again(own_lab)
    assert disk_of(own_lab.golden()).backing.changeId != first


def test_no_snapshot_has_the_id_of_another(own_lab: VcenterLab):
    golden, first = own_lab.golden()._moId, own_lab.snapshot("untracked", TWO_DISKS)._moId
    started_again(own_lab)
    assert own_lab.golden()._moId == golden
    assert own_lab.snapshot("untracked", TWO_DISKS)._moId != first
    own_lab.service.guest_writes("two-disks", 2001, 0, b"other bytes")
    started_again(own_lab)
    assert own_lab.golden()._moId != golden
