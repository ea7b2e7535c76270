"""What every cloud shares about the resources of a run."""

from __future__ import annotations

from imageport.clouds.intents import Intents
from imageport.errors import CloudUnavailable, ShareUnreachable
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
