"""The export stage of a flow: what is asked, what is remembered, what is left of a failure."""

from __future__ import annotations

import importlib
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound, TerminationSignal

from imageport.citrix.vdisk_store import IfExists
from imageport.errors import HypervisorRefused, InputError, SourceChanged, VerificationFailed
from imageport.workflow.choices import EnginePlace
from imageport.workflow.master import ExportWay
from tasks.models import ExportResult, MasterIdentity, MasterRef, Route, SourceIdentity
from tasks.options import PrepareOptions

_export = importlib.import_module("flows._export")
janitor_flow = importlib.import_module("flows.janitor")
_bring = importlib.import_module("flows._bring")
MASTER = MasterRef(
    site="onprem", connection="imageport-vsphere/v", vm="/dc/vm/gold", image="", snapshot="",
    disk="", way=ExportWay.AUTO,
)  # fmt: skip
ROUTE = Route(source="onprem", target="cloud", cloud="x/y", place="aws/r/cloud", exports=True)


class Exporting:
    """The tasks of the stage, as a flow calls them; writes down what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.identity = MasterIdentity(image="gold", key="", exported_id="")
        self.run = "other-run"
        self.there = [True]
        self.error: BaseException | None = None
        self.refusal: Exception | None = None

    def identify_master(self, _master: MasterRef) -> MasterIdentity:
        return self.identity

    def look(self, key: str) -> None:
        self.calls.append(("preflight", key))
        if self.refusal is not None:
            raise self.refusal

    def still_exported(self, _master: MasterRef, _result: ExportResult) -> bool:
        return self.there.pop(0)

    def release_master(self, _master: MasterRef) -> None:
        self.calls.append("release")

    def export(self, _master: MasterRef, key: str) -> ExportResult:
        self.calls.append(("export", key))
        if self.error is not None:
            raise self.error
        return ExportResult(
            id="s-1", image="gold", file_name="gold.vhdx", size_bytes=1, way="", run=self.run
        )


class Remembered:
    """A task that may be asked to forget."""

    def __init__(self, stage: Exporting) -> None:
        self.stage = stage

    def __call__(self, *arguments: Any) -> ExportResult:
        return self.stage.export(*arguments)

    def with_options(self, **options: Any) -> Remembered:
        assert options == {"refresh_cache": True}
        self.stage.calls.append("again")
        return self


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Exporting:
    made = Exporting()
    for name in ("identify_master", "still_exported", "release_master"):
        monkeypatch.setattr(_export, name, getattr(made, name))
    monkeypatch.setattr(_export, "export", Remembered(made))
    return made


def test_a_named_snapshot_is_remembered_by_its_content(stage: Exporting) -> None:
    stage.identity = MasterIdentity(image="gold", key="abc", exported_id="")
    _, moved = _export.exported(MASTER, stage.look)
    assert stage.calls == [("preflight", "abc"), ("export", "abc")]
    assert not moved


def test_without_a_named_snapshot_only_this_run_remembers(stage: Exporting) -> None:
    _export.exported(MASTER, stage.look)
    assert stage.calls[0] == ("preflight", "run None")


def test_what_is_exported_already_needs_no_preflight(stage: Exporting) -> None:
    stage.identity = MasterIdentity(image="gold", key="abc", exported_id="s-1")
    _export.exported(MASTER, stage.look)
    assert stage.calls == [("export", "abc")]


def test_an_export_that_the_folder_lost_is_made_again(stage: Exporting) -> None:
    stage.there = [False]
    _export.exported(MASTER, stage.look)
    assert stage.calls[1:] == [("export", "run None"), "again", ("export", "run None")]


def test_what_this_run_wrote_counts_as_moved(stage: Exporting) -> None:
    stage.run = "None"  # outside of a run Prefect has no id
    assert _export.exported(MASTER, stage.look)[1]


@pytest.mark.parametrize(
    "error",
    [VerificationFailed("Bad export: found other bytes."), TerminationSignal(signal.SIGTERM)],
    ids=["failed", "cancelled between two tries"],
)
def test_nothing_of_an_export_that_will_not_go_on_stays(
    stage: Exporting, error: BaseException
) -> None:
    stage.error = error
    with pytest.raises(type(error)):
        _export.exported(MASTER, stage.look)
    assert stage.calls[-1] == "release"


@pytest.mark.parametrize(("attempt", "released"), [(1, False), (2, True)])
def test_what_a_killed_attempt_left_goes_also_when_the_next_gets_nowhere(
    stage: Exporting, monkeypatch: pytest.MonkeyPatch, attempt: int, released: bool
) -> None:
    monkeypatch.setattr(_export.flow_run, "get_run_count", lambda: attempt)
    stage.refusal = HypervisorRefused("Cannot export 'gold': a privilege is gone.")
    with pytest.raises(HypervisorRefused):
        _export.exported(MASTER, stage.look)
    assert ("release" in stage.calls) is released


@pytest.mark.parametrize(("exported", "refused"), [("", False), ("k", False), ("older", True)])
def test_only_what_this_run_exported_is_brought(
    monkeypatch: pytest.MonkeyPatch, exported: str, refused: bool
) -> None:
    class BroughtError(Exception):
        """The content was accepted."""

    def accepted(*_arguments: Any) -> None:
        raise BroughtError

    identity = SourceIdentity(
        image="gold", source_key="k", options_key="o", engine_id="e", size_bytes=1, prepared_id=""
    )
    monkeypatch.setattr(_bring, "identify", lambda *_: identity)
    monkeypatch.setattr(_bring, "preflight", accepted)
    chosen = _bring.Bringing(
        "", IfExists.NEW_VERSION, PrepareOptions(), keep_parent=True, engine=EnginePlace.CLOUD,
        source_key=exported,
    )  # fmt: skip
    with pytest.raises(SourceChanged if refused else BroughtError):
        _bring.bring(ROUTE, None, None, "gold", chosen)


def test_a_name_that_no_store_takes_is_refused_before_hours_of_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = SourceIdentity(
        image="gold", source_key="k", options_key="o", engine_id="e", size_bytes=1, prepared_id=""
    )
    monkeypatch.setattr(_bring, "identify", lambda *_: identity)
    chosen = _bring.Bringing(
        "g:old", IfExists.NEW_VERSION, PrepareOptions(), keep_parent=True, engine=EnginePlace.CLOUD
    )
    with pytest.raises(InputError, match="Bad vDisk name 'g:old'"):
        _bring.looked_at(ROUTE, "gold", chosen)
    machine = importlib.import_module("flows.mcs_to_pvs").mcs_to_pvs.fn
    with pytest.raises(InputError, match="Bad vDisk name 'g:old'"):
        machine(None, None, "/dc/vm/gold", None, None, publish_name="g:old")


def test_what_an_export_left_is_released_by_its_own_site(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, dict[str, Any]]] = []

    async def run(deployment: str, parameters: dict[str, Any], **_options: Any) -> None:
        started.append((deployment, parameters))

    monkeypatch.setattr(janitor_flow, "arun_deployment", run)
    pool = SimpleNamespace(work_pool="dc1")
    monkeypatch.setattr(janitor_flow, "load_site", lambda name: {"east": pool}[name])
    source = {"$ref": {"block_document_slug": "imageport-site/east"}}
    vcenter = {"$ref": {"block_document_slug": "imageport-vsphere/v"}}
    values = {"source": source, "hypervisor": vcenter, "vm": "/dc/vm/gold", "keep_parent": True}
    ended = SimpleNamespace(id="r", name="r", run_count=1, parameters=values)
    assert janitor_flow._release_export(ended) == ""
    del values["keep_parent"]
    assert started == [("release-export/dc1", values)]
    janitor_flow._release_export(SimpleNamespace(parameters={"source": source}))
    assert len(started) == 1
    monkeypatch.setattr(janitor_flow, "load_site", lambda _name: SimpleNamespace(work_pool="none"))

    async def missing(_deployment: str, **_options: Any) -> None:
        raise ObjectNotFound(LookupError())

    monkeypatch.setattr(janitor_flow, "arun_deployment", missing)
    ended = SimpleNamespace(id="r", name="r", run_count=1, parameters=values)
    assert "there is no deployment release-export/none" in janitor_flow._release_export(ended)
