"""What every cloud promises when its service throttles, fails and loses answers.

One suite over all implementations, as `tests.clouds.cloud_contract`. Whoever calls a cloud repeats
what says that it may be repeated; the promise is that nothing else is ever said for such trouble,
that repeating ends, and that nothing is made twice or forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import pytest

from imageport.cloud import Cloud
from imageport.clouds.sweep import sweep
from imageport.errors import CloudError, CloudThrottled
from imageport.model import BLOCK_BYTES, ZERO_BLOCK
from imageport.transfer.block_target import BlockTarget
from tests.clouds.cloud_contract import (
    BLOCKS,
    GUID,
    SITE,
    CloudLab,
    block,
    digest,
    ids,
    in_days,
    plan_of,
)

TROUBLES = ("throttled", "failing", "losing answers")
MOST_TRIES = 40
"""Of one call; with a quarter of all requests failing, a call of six fails eight times of ten."""

Found = TypeVar("Found")


class Persistent:
    """Repeats what may be repeated, as pipeline and tasks do."""

    def __call__(self, call: Callable[[], Found]) -> Found:
        for _ in range(MOST_TRIES):
            try:
                return call()
            except CloudError as error:
                if not error.retryable:
                    raise
                time.sleep(0.2 if isinstance(error, CloudThrottled) else 0.0)
        raise AssertionError(f"no success in {MOST_TRIES} tries")

    def uploaded(
        self,
        cloud: Cloud,
        blocks: Mapping[int, bytes],
        *,
        token: str,
        parent: str = "",
        unchanged: Mapping[int, bytes] | None = None,
    ) -> str:
        """Upload and return the reference; ``unchanged`` is what the parent holds already."""
        target = cloud.upload_target("gold", parent=parent)
        self(lambda: target.begin(plan_of(blocks), token))
        for index, data in blocks.items():
            self(partial(target.put, index, data, digest(data)))
        kept: Mapping[int, bytes] = {}
        if parent and not target.traits.starts_from_parent:
            kept = {index: data for index, data in (unchanged or {}).items() if data != ZERO_BLOCK}
            for index in kept:
                self(partial(target.take_from_parent, index, 1))
        return self._committed(target, {**kept, **blocks})

    def _committed(self, target: BlockTarget, blocks: Mapping[int, bytes]) -> str:
        digests = {index: digest(data) for index, data in blocks.items()}
        reference = self(lambda: target.commit(digests))
        target.close()
        return reference


@pytest.mark.parametrize("trouble", TROUBLES)
class CloudFaultContract:
    """The suite."""

    @pytest.fixture
    def lab(self) -> CloudLab:
        raise NotImplementedError

    def test_an_upload_and_its_child_come_through_and_exist_once(self, lab: CloudLab, trouble: str):
        cloud, persistent = lab.cloud("run-1"), Persistent()
        changed = {3: block(33), 9: block(9)}
        unchanged = {index: data for index, data in BLOCKS.items() if index not in changed}
        with lab.trouble(trouble):
            parent = persistent.uploaded(cloud, BLOCKS, token="t-1")
            child = persistent.uploaded(
                cloud, changed, token="t-2", parent=parent, unchanged=unchanged
            )
            assert persistent(lambda: cloud.exists(child))
        expected = {**BLOCKS, **changed}
        with cloud.open_snapshot(child) as disk:
            for index, data in expected.items():
                assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == data
        assert ids(cloud.list_ours(SITE)) == {parent, child}
        entries = lab.state.ledger.open_entries()
        assert {entry.resource_id for entry in entries} == {parent, child}

    def test_what_is_stored_reads_back_to_the_byte(self, lab: CloudLab, trouble: str):
        cloud, persistent = lab.cloud("run-1"), Persistent()
        reference = persistent.uploaded(cloud, BLOCKS, token="t-1")
        with lab.trouble(trouble):
            disk = persistent(lambda: cloud.open_snapshot(reference))
            for index, data in {**BLOCKS, 1: ZERO_BLOCK}.items():
                assert persistent(partial(disk.read_at, index * BLOCK_BYTES, BLOCK_BYTES)) == data
            persistent(disk.close)

    def test_an_abort_leaves_nothing(self, lab: CloudLab, trouble: str):
        cloud, persistent = lab.cloud("run-1"), Persistent()
        with lab.trouble(trouble):
            target = cloud.upload_target("gold")
            persistent(lambda: target.begin(plan_of(BLOCKS), "t-1"))
            persistent(lambda: target.put(0, BLOCKS[0], digest(BLOCKS[0])))
            persistent(target.abort)
            target.close()
        assert cloud.list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []

    def test_one_disk_is_made_and_goes_and_a_sweep_finds_the_rest(
        self, lab: CloudLab, trouble: str
    ):
        cloud, persistent = lab.cloud("run-1"), Persistent()
        reference = persistent.uploaded(cloud, BLOCKS, token="t-1")
        with lab.trouble(trouble):
            disk = persistent(lambda: cloud.make_disk(reference, GUID))
            assert persistent(lambda: cloud.make_disk(reference, GUID)) == disk
        assert ids(cloud.list_ours(SITE)) == {reference, disk.id}
        with lab.trouble(trouble):
            persistent(lambda: cloud.delete_disk(disk))
        assert ids(cloud.list_ours(SITE)) == {reference}
        with lab.trouble(trouble):
            persistent(lambda: sweep(lab.cloud("sweep"), lab.state, SITE, in_days(2)))
        assert cloud.list_ours(SITE) == []
        assert lab.state.ledger.open_entries() == []
