"""AWS carries a request out and its answer gets lost: nothing fails, nothing exists twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.clouds import boot_console, engine_setup
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.aws_lost_answers import LOST, LosesAnswers, losing_answers
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, uploaded
from tests.clouds.stand_in_engine import build_stand_in


@pytest.fixture
def loser(aws_lab: AwsLab) -> Iterator[LosesAnswers]:
    with losing_answers(aws_lab._shared) as made:
        yield made


def test_every_answer_may_be_lost_once_from_upload_to_snapshot(
    aws_lab: AwsLab, loser: LosesAnswers, guest: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)
    guest("work")
    cloud = aws_lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(reference, GUID)
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=GUID),
        options=EngineOptions(recommended=("slow",)),
    )
    assert cloud.run_engine(disk, job, deadline_seconds=60).ok
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    prepared = cloud.snapshot(disk, "P")
    left = {item.id: item.kind for item in cloud.list_ours(SITE)}
    assert left == {reference: "snapshot", disk.id: "volume", prepared: "snapshot"}
    cloud.delete_disk(disk)
    cloud.delete_snapshot(prepared)
    cloud.delete_snapshot(reference)
    assert cloud.list_ours(SITE) == []
    assert aws_lab.state.ledger.open_entries() == []
    assert sorted(loser.lost) == sorted(LOST)
