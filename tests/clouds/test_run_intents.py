"""What every cloud shares about the resources of a run."""

from __future__ import annotations

from imageport.clouds.intents import Intents
from imageport.errors import CloudUnavailable, ShareUnreachable
from imageport.state.records import LedgerEntry
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder


def test_a_clean_up_goes_on_after_errors_of_the_cloud_and_of_the_state_store():
    intents = Intents(StateStore(MemoryFolder()).ledger, "cloud/x", "frankfurt", "run-1", 3600.0)
    done: list[str] = []

    def away() -> None:
        raise CloudUnavailable("the cloud is away")

    def unrecorded() -> None:
        raise ShareUnreachable("the share is away")

    steps = [("machine", away), ("folder", unrecorded), ("group", lambda: done.append("group"))]
    left = intents.undo_all(steps)
    assert left == ["machine: the cloud is away", "folder: the share is away"]
    assert done == ["group"]


class TaggingIntents(Intents):
    """Writes down whose expiry it would write to a tag."""

    tagged: tuple[str, ...] = ()

    def tag_expiry(self, entry: LedgerEntry, expires: str) -> None:
        assert expires > entry.created
        self.tagged += (entry.resource_id,)


def test_each_cloud_of_one_run_renews_the_tags_of_its_own_resources_alone():
    ledger = StateStore(MemoryFolder()).ledger
    scopes = ("azure/westeurope/group-1", "gcp/europe-west3", "gcp/europe-west3/p-1")
    clouds = [TaggingIntents(ledger, scope, "frankfurt", "run-1", 3600.0) for scope in scopes]
    for cloud in clouds:
        cloud.record(cloud.intend("disk", "work"), f"disk of {cloud.scope}")
    for cloud in (clouds[0], clouds[2]):
        cloud.renew()
        assert cloud.tagged == (f"disk of {cloud.scope}",)
