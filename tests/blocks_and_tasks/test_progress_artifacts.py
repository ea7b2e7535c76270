"""Progress reaches the run's artifacts and log, seldom enough for the server's event table."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from imageport.progress import Event, EventKind, Stage
from imageport.progress_text import amount, percent
from tasks import _reporting
from tasks._reporting import _Shown, _StageArtifacts, artifact_key, shown_progress


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("upload", "Win 11_Gold.vhdx"), "upload-win-11-gold-vhdx"),
        (("images", "aws/eu-central-1/site-b"), "images-aws-eu-central-1-site-b"),
    ],
)
def test_keys_are_as_prefect_takes_them(words: tuple[str, ...], key: str) -> None:
    assert artifact_key(*words) == key


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((120 << 20, 300 << 20, "bytes", 3.0), "120 of 300 MiB, 40 MiB/s, 4 s left"),
        ((0, 300 << 20, "bytes", 3.0), "0 of 300 MiB"),
        ((5 << 20, 0, "bytes", 1.0), "5 MiB, 5 MiB/s"),
        ((2, 5, "steps", 9.0), "2 of 5 steps"),
        ((2, 0, "blocks", 9.0), "2 blocks"),
    ],
)
def test_an_amount_reads_as_people_say_it(arguments: Any, text: str) -> None:
    assert amount(*arguments) == text


def test_percent_never_leaves_its_scale() -> None:
    assert [percent(0, 0), percent(1, 2), percent(3, 2)] == [0.0, 50.0, 100.0]


def shown(percent_: float, at: float) -> _Shown:
    state = _Shown(0.0, Event("upload", EventKind.ADVANCED))
    state.artifact, state.percent, state.at = object(), percent_, at  # type: ignore[assignment]
    return state


@pytest.mark.parametrize(
    ("before", "reached", "seconds", "due"),
    [
        (10.0, 10.0, 60.0, False),
        (10.0, 11.0, 1.0, False),
        (10.0, 11.0, 2.5, True),
        (10.0, 10.2, 5.0, False),
        (10.0, 10.2, 10.5, True),
        (50.0, 20.0, 2.5, True),
    ],
    ids=["same", "too-soon", "one-percent", "too-little", "ten-seconds", "rewound"],
)
def test_updates_are_throttled(before: float, reached: float, seconds: float, due: bool) -> None:
    stages = _StageArtifacts("gold", _reporting.logging.getLogger("test"))
    assert stages._is_due(shown(before, at=100.0), reached, 100.0 + seconds) is due


def test_a_stage_took_what_it_took_however_long_its_task_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[str] = []
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(_reporting.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(
        _reporting,
        "create_progress_artifact",
        lambda *_, description, **__: written.append(description),
    )
    monkeypatch.setattr(
        _reporting,
        "update_progress_artifact",
        lambda *_, description, **__: written.append(description),
    )
    logger = _reporting.logging.getLogger("stages")
    caplog.set_level("INFO", logger="stages")
    stages = _StageArtifacts("gold", logger)
    stages(Event("upload", EventKind.STARTED, total=4))
    clock.now += 20.0
    stages(Event("upload", EventKind.FINISHED, done=4, total=4, note="all there"))
    clock.now += 400.0
    stages._publish(final=True)
    assert [text.rpartition("; ")[2] for text in written] == ["finished in 20 s"]
    assert len(caplog.messages) == 1


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_events_of_other_threads_become_one_artifact_of_the_run() -> None:
    @task
    def moving() -> None:
        with shown_progress("Gold 1") as events:
            stage = Stage("upload", events, total=4 << 20)
            threads = [threading.Thread(target=lambda: stage.advance(1 << 20)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(0.6)
            stage.finish("all there")

    @flow
    def one() -> None:
        moving()

    one()
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["upload-gold-1"]))
        )
    assert len(found) == 1
    assert found[0].type == "progress"
    assert found[0].data == 100.0
    assert "all there" in (found[0].description or "")
    assert found[0].flow_run_id is not None
    assert found[0].task_run_id is not None


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_a_progress_bar_that_fails_ends_no_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(_reporting, "create_progress_artifact", refuse)

    @flow
    def one() -> str:
        with shown_progress("gold") as events:
            Stage("upload", events, total=2).advance(1)
            time.sleep(0.6)
        return "went on"

    assert one() == "went on"
