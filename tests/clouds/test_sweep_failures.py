"""A sweep that cannot delete one thing deletes the rest and says so."""

from __future__ import annotations

import pytest

from imageport.cloud import CloudResource
from imageport.clouds.memory import MemoryCloud
from imageport.clouds.memory_blocks import MemoryAccount
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import TAG_EXPIRES, TAG_RUN, TAG_SITE
from imageport.errors import CloudUnavailable, ImageportError, StateError
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, in_days, uploaded


class StubbornCloud(MemoryCloud):
    stubborn = ""

    error: ImageportError = CloudUnavailable("Cannot delete it: no answer.")

    def delete_resource(self, resource: CloudResource) -> str:
        if resource.id == self.stubborn:
            raise self.error
        return super().delete_resource(resource) or f"nothing of {resource.kind} is left"


@pytest.mark.parametrize(
    "error", [CloudUnavailable("no answer"), StateError("Bad index 'x': it is damaged.")]
)
def test_what_cannot_be_deleted_does_not_protect_the_rest_and_is_tried_again(
    error: ImageportError,
):
    state = StateStore(MemoryFolder())
    cloud = StubbornCloud(state.ledger, "run-1", site=SITE, account=MemoryAccount())
    reference = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(reference, GUID)
    cloud.stubborn, cloud.error = disk.id, error
    with pytest.raises(type(error)) as caught:
        sweep(cloud, state, SITE, in_days(2))
    assert caught.value.fields["deleted"] == [reference]
    assert caught.value.fields["left"] == [disk.id]
    assert [entry.resource_id for entry in state.ledger.open_entries()] == [disk.id]
    cloud.stubborn = ""
    (swept,) = sweep(cloud, state, SITE, in_days(2))
    assert str(swept) == f"volume {disk.id} (nothing of volume is left)"
    assert state.ledger.open_entries() == []


@pytest.mark.parametrize("expires", ["", "soon", "2999-01-01T00:00:00+00:00"])
def test_a_resource_whose_expiry_cannot_be_read_or_is_far_is_left_alone(expires: str):
    state = StateStore(MemoryFolder())
    cloud = MemoryCloud(state.ledger, "run-1", site=SITE)
    disk = cloud.make_disk(uploaded(cloud, BLOCKS), GUID)
    cloud.account.volumes[disk.id].tags[TAG_EXPIRES] = expires
    # No ledger knows of it: its tags are all there is.
    lost = StateStore(MemoryFolder())
    assert sweep(cloud, lost, SITE, in_days(2)) == []


def test_an_expiry_without_a_zone_is_utc():
    state = StateStore(MemoryFolder())
    cloud = MemoryCloud(state.ledger, "run-1", site=SITE)
    disk = cloud.make_disk(uploaded(cloud, BLOCKS), GUID)
    cloud.account.volumes[disk.id].tags[TAG_EXPIRES] = "2020-01-01T00:00:00"
    lost = StateStore(MemoryFolder())
    assert [item.id for item in sweep(cloud, lost, SITE, in_days(0))] == [disk.id]


def test_a_listing_that_shows_too_much_is_not_believed():
    state = StateStore(MemoryFolder())
    cloud = MemoryCloud(state.ledger, "run-1", site="paris")
    cloud.make_disk(uploaded(cloud, BLOCKS), GUID)
    foreign = cloud.list_ours("paris")
    cloud.list_ours = lambda _site: foreign  # type: ignore[method-assign]
    assert all(item.tags[TAG_SITE] == "paris" and item.tags[TAG_RUN] for item in foreign)
    assert sweep(cloud, state, SITE, in_days(400)) == []
