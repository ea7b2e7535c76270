"""Composing at the site: what is uploaded is composed, and a killed run mixes no two composings.

The engine is a function that writes where it was not asked before: the number of its call into
block 0, into one of two that hold data and into one of three that are a hole in the image. Recipe
of the image: see `SmallSite.write_vdisk`, blocks 1, 2, a hole, 3, and holes behind them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds.memory import MemoryBehaviour, MemoryCloud
from imageport.clouds.memory_blocks import MemoryVolume
from imageport.clouds.memory_target import MemorySnapshotTarget
from imageport.compose.contract import (
    Action,
    Change,
    EngineJob,
    EngineOptions,
    EngineReport,
    Refusal,
    VerdictItem,
)
from imageport.errors import (
    GuestRefused,
    ImageportError,
    InputError,
    PermissionMissing,
    ShareFull,
    SourceChanged,
    VerdictFailed,
)
from imageport.formats.overlay_disk import OverlayDisk
from imageport.model import BLOCK_BYTES, GenerationRole
from imageport.state.records import Generation
from imageport.transfer.block_target import BlockTarget
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.clean_up import clean_up
from imageport.workflow.compose_at_site import SiteComposing, compose_and_upload
from imageport.workflow.facts import source_facts
from imageport.workflow.prepare import find_current, prepare
from imageport.workflow.upload import stats_of
from tasks._reporting import publish_report
from tests.workflow.small_site import PowerCutError, SmallSite

CHANGE = Change("stand_in", "required", "disk", "block 0")
FIRST_HOLE = 4
DATA_BLOCKS = (1, 3)


class SiteEngine:
    """Stands in for the process; counts its jobs."""

    def __init__(self) -> None:
        self.calls = 0
        self.report = EngineReport(Action.COMPOSE, ok=True, changes=(CHANGE,))
        self.fails: ImageportError | None = None

    def __call__(self, disk: OverlayDisk, job: EngineJob, **_: Any) -> EngineReport:
        assert job.action is Action.COMPOSE
        self.calls += 1
        mark = bytes([100 + self.calls % 100])
        disk.write_at(0, mark * 512)
        disk.write_at(DATA_BLOCKS[self.calls % 2] * BLOCK_BYTES, mark * 512)
        disk.write_at((FIRST_HOLE + self.calls % 3) * BLOCK_BYTES, mark * 512)
        if self.fails is not None:
            raise self.fails
        return self.report


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SiteEngine:
    made = SiteEngine()
    monkeypatch.setattr("imageport.workflow.site_job.run_site_engine", made)
    # Its sources, which somebody may be writing, have no part in these tests.
    for module in ("compose_at_site", "prepare"):
        monkeypatch.setattr(f"imageport.workflow.{module}.engine_id", lambda: "stand-in")
    return made


def composed(
    site: SmallSite, run: str = "run-1", *, choices: PrepareChoices | None = None, **wishes: Any
) -> Generation:
    key = source_facts(site.source, "gold").source_key
    composing = SiteComposing(key, choices or PrepareChoices())
    return site._dated(
        compose_and_upload(site.place(run), site.source, "gold", composing, **wishes)
    )


def check_one_composing(site: SmallSite, uploaded: Generation, engine: SiteEngine) -> None:
    """The snapshot holds what one call of the engine made, whole, and nothing of another."""
    snapshot = site.account.snapshots[uploaded.handle["snapshot_id"]]
    assert snapshot.completed
    mark = snapshot.blocks[0][0]
    number = mark - 100
    assert 1 <= number <= engine.calls
    assert snapshot.blocks[0][:513] == bytes([mark]) * 512 + b"\1"
    for at, byte in enumerate((2, 3)):
        wanted = bytes([mark if at == number % 2 else byte]) * 512
        assert snapshot.blocks[DATA_BLOCKS[at]] == wanted.ljust(BLOCK_BYTES, bytes([byte])), at
    for at in range(3):
        block = snapshot.blocks.get(FIRST_HOLE + at, bytes(BLOCK_BYTES))
        wanted = bytes([mark]) * 512 if at == number % 3 else b""
        assert block == wanted.ljust(BLOCK_BYTES, b"\0"), at
    manifest = site.state.manifests.get(uploaded.id)
    assert manifest is not None
    assert manifest.image_digest() == uploaded.image_digest


def test_what_is_uploaded_is_composed_and_the_source_is_not_written(
    site: SmallSite, engine: SiteEngine
) -> None:
    before = site.source.folder.read_bytes("gold.vhdx", 1 << 30)
    uploaded = composed(site)
    check_one_composing(site, uploaded, engine)
    assert site.source.folder.read_bytes("gold.vhdx", 1 << 30) == before
    assert uploaded.details["engine"] == "site"
    assert EngineReport.from_json(uploaded.details["composed"]) == engine.report


@pytest.mark.usefixtures("engine")
def test_what_was_composed_is_shown_beside_the_run_that_uploaded_it(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def create(*, key: str, markdown: str, description: str) -> None:
        assert (key, "at the site" in description) == ("changes-gold", True)
        pages.append(markdown)

    monkeypatch.setattr("tasks._reporting.create_markdown_artifact", create)
    publish_report(composed(site))
    (page,) = pages
    assert "## stand\\_in (1)" in page


def test_prepare_only_boots_and_judges_what_was_composed_at_the_site(
    site: SmallSite, engine: SiteEngine
) -> None:
    jobs: list[Action] = []

    def judge(_volume: MemoryVolume, job: EngineJob, _payload: Path | None) -> EngineReport:
        jobs.append(job.action)
        return EngineReport(action=job.action, ok=True)

    site.behaviour = MemoryBehaviour(run_job=judge)
    prepared = site.prepared(composed(site))
    assert jobs == [Action.VERIFY]
    assert prepared.details["engine"] == "site"
    assert EngineReport.from_json(prepared.details["composed"]) == engine.report
    # Whoever asks for the image with these options finds it, wherever the engine worked.
    key = source_facts(site.source, "gold").source_key
    assert prepared.source_key == key
    wanted = prepared.details["options_key"]
    assert find_current(site.place(), "gold", key, wanted) == prepared
    again = site.prepared(composed(site, "run-2"), "run-2")
    assert (again.id, engine.calls, jobs) == (prepared.id, 1, [Action.VERIFY])


def test_an_unchanged_image_with_the_same_options_is_neither_composed_nor_sent(
    site: SmallSite, engine: SiteEngine
) -> None:
    first = composed(site)
    assert composed(site, "run-2").id == first.id
    assert engine.calls == 1
    assert "nothing had to move" in site.events[-1].note


def test_other_options_compose_again_and_send_what_differs(
    site: SmallSite, engine: SiteEngine
) -> None:
    first = composed(site)
    other = PrepareChoices(engine=EngineOptions(list_of_ddcs=("ddc1.example",)))
    second = composed(site, "run-2", choices=other)
    assert second.parent_id == first.id
    # Block 0, what is written now, and what was written then: as it is in the image again.
    assert stats_of(second).bytes_sent == 5 * BLOCK_BYTES
    check_one_composing(site, second, engine)
    with pytest.raises(InputError, match="other options"):
        prepare(site.place("run-2"), second.id, PrepareChoices())


@pytest.mark.usefixtures("engine")
def test_a_raw_upload_and_a_composed_one_are_two_things(site: SmallSite) -> None:
    raw = site.uploaded()
    made = composed(site, "run-2")
    assert raw.id != made.id
    assert made.parent_id == raw.id
    assert stats_of(made).bytes_sent == 3 * BLOCK_BYTES
    assert site.uploaded("run-3").id == raw.id


FAILED_ITEM = VerdictItem(name="boot_drivers", passed=False, evidence="nvme: Start=3")


@pytest.mark.parametrize(
    ("report", "fails", "error"),
    [
        (EngineReport(Action.COMPOSE, ok=False, verdict=(FAILED_ITEM,)), None, VerdictFailed),
        (
            EngineReport(Action.COMPOSE, ok=False, refusals=(Refusal("bitlocker", "r", "h"),)),
            None,
            GuestRefused,
        ),
        (EngineReport(Action.COMPOSE, ok=True), ShareFull("Cannot keep the changes."), ShareFull),
    ],
    ids=["verdict", "refused", "no-room"],
)
def test_what_fails_at_the_site_never_reaches_the_cloud(
    site: SmallSite,
    engine: SiteEngine,
    report: EngineReport,
    fails: ImageportError | None,
    error: type[ImageportError],
) -> None:
    engine.report, engine.fails = report, fails
    with pytest.raises(error):
        composed(site)
    assert site.account.snapshots == {}
    assert site.state.ledger.open_entries(site="site-b") == []
    assert site.state.catalogue.list() == []


def test_an_image_that_preflight_did_not_see_is_not_composed(
    site: SmallSite, engine: SiteEngine
) -> None:
    composing = SiteComposing("another", PrepareChoices())
    with pytest.raises(SourceChanged, match="gold"):
        compose_and_upload(site.place(), site.source, "gold", composing)
    assert engine.calls == 0


@pytest.mark.parametrize("starts_from_parent", [True, False])
@pytest.mark.parametrize("with_parent", [True, False])
def test_a_power_cut_at_any_change_ends_in_one_composing_and_one_snapshot(
    engine: SiteEngine, with_parent: bool, starts_from_parent: bool
) -> None:
    behaviour = MemoryBehaviour(starts_from_parent=starts_from_parent)
    other = PrepareChoices(engine=EngineOptions(list_of_ddcs=("ddc1.example",)))
    cuts = 0
    while True:
        engine.calls = 0
        site = SmallSite(behaviour=behaviour)
        site.write_vdisk(1, 2, 0, 3)
        kept = {composed(site, "run-0", choices=other).id} if with_parent else set()
        if not site.killed(cuts, lambda: composed(site)):  # noqa: B023 - called now
            break
        uploaded = composed(site)
        check_one_composing(site, uploaded, engine)
        assert {*site.kept(GenerationRole.UPLOADED)} == {uploaded.id, *kept}, cuts
        assert site.state.journals.keys() == [], cuts
        checkpoints = [entry.name for entry in site.state.folder.list("checkpoints")]
        assert [name for name in checkpoints if name.endswith(".json")] == [], cuts
        clean_up(site.state, site.place("janitor").cloud, "site-b", run="run-1")
        assert len(site.account.snapshots) == 1 + len(kept), cuts
        cuts += 1
    assert cuts > 10


def test_a_run_that_never_came_to_its_upload_forgets_nothing_of_the_one_before(
    site: SmallSite, engine: SiteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> BlockTarget:
        raise PermissionMissing("Cannot start a snapshot: not allowed.")

    site.behaviour = MemoryBehaviour(starts_from_parent=False)

    def cut(*_: object) -> str:
        site.power.lives = 0
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(MemorySnapshotTarget, "commit", cut)  # everything is put by then
        assert site.killed(1_000_000, lambda: composed(site))
    with monkeypatch.context() as patch:
        patch.setattr(MemoryCloud, "upload_target", refuse)
        with pytest.raises(PermissionMissing):
            composed(site)
    check_one_composing(site, composed(site), engine)


def test_the_catalogue_says_where_the_engine_worked(site: SmallSite, engine: SiteEngine) -> None:
    prepared = site.prepared(composed(site))
    assert engine.calls == 1
    other = replace(PrepareChoices(), engine=EngineOptions(first_boot_attempts=2))
    cloud = prepare(site.place("run-2"), site.uploaded("run-2").id, other)
    assert [item.details["engine"] for item in (prepared, cloud)] == ["site", "cloud"]
