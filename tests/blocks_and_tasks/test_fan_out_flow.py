"""One image to several targets in one run: who fails alone, what is said of each, who waits."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Failed

from flows._automations import automations
from flows._branches import in_branches
from flows._bring import Bringing, Brought
from flows._hand_over import ALREADY_THERE, HandedOver
from flows._marks import PARTIALLY_PUBLISHED
from imageport.citrix.vdisk_store import IfExists
from imageport.cli.run_watch import RunWatch
from imageport.errors import CloudThrottled, InputError, PermissionMissing, TransferCancelled
from imageport.workflow.choices import EnginePlace
from tasks._branch import Branch, current_branch, working_for
from tasks._places import workplace
from tasks._reporting import report_key
from tasks.models import ExportResult, GenerationResult, Route, SourceIdentity
from tasks.options import PrepareOptions

bring = importlib.import_module("flows._bring")
destinations = importlib.import_module("flows._destinations")
fan_out = importlib.import_module("flows.fan_out")
dr_prestage = importlib.import_module("flows.dr_prestage")
hand_over = importlib.import_module("flows._hand_over")
janitor = importlib.import_module("flows.janitor")
IDENTITY = SourceIdentity(
    image="gold", source_key="k", options_key="o", engine_id="e", size_bytes=1, prepared_id=""
)
# Outside of a run Prefect has no id.
UPLOADED = GenerationResult(
    id="u", image="gold", role="U", size_bytes=1, snapshot_id="s", run="None",
    figures={"bytes_read": 3 << 20, "bytes_sent": 2 << 20, "seconds": 4.2},
)  # fmt: skip


# --- branches ---------------------------------------------------------------------------------


def test_branches_run_at_the_same_time_and_keep_their_order() -> None:
    together = threading.Barrier(3)

    def work(number: int) -> str:
        together.wait(timeout=30)
        return f"{number} for {current_branch().name}"

    outcomes = in_branches(["aws", "azure", "gcp"], work)
    assert [item.made for item in outcomes] == ["0 for aws", "1 for azure", "2 for gcp"]


def test_no_more_branches_go_at_once_than_is_asked_for() -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    def work(_number: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1

    assert len(in_branches([str(number) for number in range(6)], work, at_once=2)) == 6
    assert most == 2


def test_a_branch_that_fails_is_its_own_outcome() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise PermissionMissing("Cannot upload: no rights.", hint="Ask for them.")
        if number == 2:
            raise ZeroDivisionError("nobody's error")
        return number

    first, second, third = in_branches(["a", "b", "c"], work)
    assert (first.made, first.error) == (0, None)
    assert second.words == "Cannot upload: no rights. [permission-missing] Ask for them."
    assert third.words == "ZeroDivisionError: nobody's error"


def test_when_the_run_is_ended_its_branches_hear_of_it_and_are_waited_for() -> None:
    asked = threading.Event()
    ended = threading.Event()

    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        asked.set()
        while not current_branch().ended():
            ended.wait(0.01)
        ended.set()

    class EndsWhileWaiting(BaseException):
        """What a termination signal is in the thread that waits."""

    def interrupt(future: Any) -> Any:
        assert asked.wait(30)
        raise EndsWhileWaiting(future)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupt)
        with pytest.raises(EndsWhileWaiting):
            in_branches(["aws", "gcp"], work, at_once=1)
    assert ended.is_set()
    assert begun == [0]  # the other never began


def test_a_branch_that_ended_keeps_no_other_waiting() -> None:
    readers = [SimpleNamespace(left=False) for _ in range(2)]
    for reader in readers:
        reader.leave = lambda reader=reader: setattr(reader, "left", True)

    def work(number: int) -> None:
        assert current_branch().source is readers[number]
        if number:
            raise CloudThrottled("Cannot go on.")

    in_branches(["a", "b"], work, SimpleNamespace(readers=readers))  # type: ignore[arg-type]
    assert [reader.left for reader in readers] == [True, True]
    assert current_branch().source is None


@pytest.mark.parametrize("prepared", ["", "p"], ids=["uploads", "has it prepared"])
def test_a_branch_that_has_no_more_to_read_keeps_no_other_waiting(
    prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    reader: Any = SimpleNamespace(leave=lambda: said.append("left"))

    def made(_route: Route, step: Any, *_arguments: Any) -> GenerationResult:
        said.append(step.name)
        return UPLOADED

    def publish(*_arguments: Any, **_words: Any) -> HandedOver:
        said.append("publish")
        return HandedOver("there", already_there=False)

    monkeypatch.setattr(bring, "_made", made)
    monkeypatch.setattr(bring, "publish_at_target", publish)
    chosen = Bringing(
        "gold", IfExists.NEW_VERSION, PrepareOptions(), keep_parent=True, engine=EnginePlace.CLOUD
    )
    identity = IDENTITY.model_copy(update={"prepared_id": prepared})
    with working_for(Branch("aws", source=reader)):
        bring.carried_out(None, None, None, identity, "gold", chosen)
    expected = ["left", "publish"] if prepared else ["upload", "left", "prepare", "publish"]
    assert said == expected


def test_a_branch_begins_nothing_once_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    async def run(deployment: str, **_words: Any) -> None:
        started.append(deployment)

    monkeypatch.setattr(hand_over, "arun_deployment", run)
    route = Route(source="a", target="b", cloud="x/y", place="aws/r/b")
    here: Any = None
    with working_for(Branch("aws", ended=lambda: True)):
        with pytest.raises(TransferCancelled, match="begin at 'aws/r/b'"):
            workplace(route, here).__enter__()
        with pytest.raises(TransferCancelled, match="publish-to-store/b"):
            asyncio.run(hand_over.run_elsewhere("publish-to-store/b", {}, "key"))
    assert started == []


def test_a_deployment_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_deployment: str, **_words: Any) -> None:
        raise ObjectNotFound(LookupError())

    monkeypatch.setattr(hand_over, "arun_deployment", run)
    with pytest.raises(InputError, match=r"Cannot start 'publish-to-store/b'.*the Site"):
        asyncio.run(hand_over.run_elsewhere("publish-to-store/b", {}, "key"))


def test_reports_of_several_targets_have_a_key_each() -> None:
    assert report_key("changes", "gold") == "changes-gold"
    found = in_branches(["aws/eu-1/b", "gcp/eu-2/b"], lambda _: report_key("changes", "gold"))
    assert [item.made for item in found] == ["changes-gold-aws-eu-1-b", "changes-gold-gcp-eu-2-b"]


# --- the flow ---------------------------------------------------------------------------------


def destination(site: str, cloud: str, suffix: str = "") -> Any:
    return SimpleNamespace(
        site=SimpleNamespace(name=site, store=SimpleNamespace(location=f"smb://{site}/store")),
        cloud=SimpleNamespace(name=cloud),
        suffix=suffix,
    )


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def route(_source: Any, site: Any, cloud: Any, *, exports: bool) -> Route:
        place = f"{cloud.name}/r/{site.name}"
        return Route(source="a", target=site.name, cloud="x/y", place=place, exports=exports)

    @contextmanager
    def source(_route: Route, _image: str, readers: int, _lock: bool) -> Iterator[Any]:
        one = SimpleNamespace(leave=lambda: None)
        yield SimpleNamespace(readers=[one] * readers, bytes_read=5 << 20)

    monkeypatch.setattr(destinations, "route_between", route)
    monkeypatch.setattr(fan_out, "shared_source", source)
    monkeypatch.setattr(fan_out, "create_table_artifact", lambda **words: made.append(words))
    monkeypatch.setattr(fan_out, "looked_at", lambda *_: IDENTITY)
    return made


def brought(
    outcomes: dict[str, Brought | Exception], monkeypatch: pytest.MonkeyPatch
) -> State[Any]:
    """Run the flow to places on as many clouds; each ends as ``outcomes`` says."""

    def carry_out(route: Route, *_arguments: Any) -> Brought:
        outcome = outcomes[route.cloud_name]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(fan_out, "carried_out", carry_out)
    places = [destination("b", cloud, f"-{cloud}") for cloud in outcomes]
    state: State[Any] = fan_out.fan_out.fn(None, places, "gold")
    return state


NEW = Brought(HandedOver("gold.vhdx in smb://b/store", already_there=False), UPLOADED)
OLD = Brought(HandedOver("gold.vhdx in smb://b/store", already_there=True))


def test_every_target_has_a_row_and_a_line(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = brought({"aws": NEW, "azure": OLD}, monkeypatch)
    assert state.is_completed()
    assert (state.message or "").splitlines() == [
        "aws/r/b: published: gold.vhdx in smb://b/store",
        "azure/r/b: already there: gold.vhdx in smb://b/store",
    ]
    (table,) = tables
    assert table["key"] == "targets-gold"
    assert "5 MiB read for 2 targets" in table["description"]
    first = table["table"][0]
    assert list(first)[-1] == "text"  # wider than the page; what is behind it is not seen
    assert (first["target"], first["MiB read"], first["MiB sent"], first["upload s"]) == (
        "aws/r/b", 3, 2, 4,
    )  # fmt: skip


def test_what_an_earlier_run_uploaded_is_no_figure_of_this_one(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = UPLOADED.model_copy(update={"run": "earlier"})
    state = brought({"aws": Brought(NEW.published, earlier)}, monkeypatch)
    (row,) = tables[0]["table"]
    assert (row["MiB read"], row["MiB sent"], row["upload s"]) == (0, 0, 0)
    assert state.is_completed()


def test_a_target_that_fails_stops_no_other_and_fails_the_run(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = PermissionMissing("Cannot upload 'gold': no rights.")
    state = brought({"aws": refused, "azure": NEW}, monkeypatch)
    assert (state.is_failed(), state.name) == (True, "PartiallyPublished")
    assert "aws/r/b: failed: Cannot upload 'gold': no rights. [permission-missing]" in str(
        state.message
    )
    assert [row["outcome"] for row in tables[0]["table"]] == ["failed", "published"]
    # The janitor is called by an event that bears the state's name.
    expected = {name for made in automations(uuid4()) for name in made.trigger.expect}  # type: ignore[union-attr]
    assert f"prefect.flow-run.{state.name}" in expected


def test_a_run_in_which_all_failed_is_plainly_failed(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = brought({"aws": CloudThrottled("Cannot x."), "gcp": OSError("y")}, monkeypatch)
    assert (state.is_failed(), state.name) == (True, "Failed")
    assert len(tables[0]["table"]) == 2


def test_a_run_that_moved_nothing_says_so(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = brought({"aws": OLD, "azure": OLD}, monkeypatch)
    assert (state.is_completed(), state.name) == (True, ALREADY_THERE)
    assert tables


def test_a_target_that_preflight_refuses_uploads_nothing(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(route: Route, _image: str, chosen: Bringing) -> SourceIdentity:
        assert chosen.publish_name == f"gold-{route.cloud_name}"
        if route.cloud_name == "azure":
            raise PermissionMissing("Cannot start.")
        return IDENTITY

    monkeypatch.setattr(fan_out, "looked_at", looked)
    state = brought({"aws": NEW, "azure": NEW, "gcp": NEW}, monkeypatch)
    assert [row["outcome"] for row in tables[0]["table"]] == ["published", "failed", "published"]
    assert state.name == "PartiallyPublished"


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([], "found none"),
        ([destination("b", "aws", "-1"), destination("b", "aws", "-2")], "aws/r/b more than once"),
        (
            [destination("b", "aws"), destination("b", "gcp")],
            "'gold' in smb://b/store more than once",
        ),
        ([destination("b", "aws", "-X"), destination("b", "gcp", "-x")], "'gold-x' in smb://b"),
        ([destination("b", "aws"), destination("B", "gcp", ".vhdx")], "'gold' in smb://b"),
        ([destination("b", "aws"), destination("c", "gcp", "-" * 50)], "54 characters"),
        (
            [destination("b", "aws", "."), destination("b", "aws", ".2")],
            "dot at the end.*version 2",
        ),
    ],
    ids=[
        "none",
        "one-place-twice",
        "one-name-twice",
        "one-name-in-two-cases",
        "one-name-in-full",
        "long-name",
        "two-bad-names",
    ],
)
def test_destinations_in_each_others_way_are_refused_before_anything(
    places: list[Any], found: str, tables: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match=found):
        fan_out.fan_out.fn(None, places, "gold")
    assert tables == []


# --- a master image is exported for those who take it -------------------------------------------


@dataclass
class Masters:
    """Stands in for the export stage: who is asked, who refuses, what is exported."""

    refused: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    exports: int = 0

    def preflight_master(self, route: Route, _master: Any, key: str, _options: Any) -> None:
        assert key == "key"
        self.asked.append(route.cloud_name)
        assert not self.exports
        if route.cloud_name in self.refused:
            raise self.refused[route.cloud_name]

    def exported(self, _master: Any, look: Callable[[str], object]) -> tuple[ExportResult, bool]:
        look("key")
        self.exports += 1
        found = ExportResult(
            id="s", image="Win11", file_name="Win11.vhdx", size_bytes=1, way="", run="r",
            source_key="k",
        )  # fmt: skip
        return found, True

    def looked_at(self, route: Route, image: str, chosen: Bringing) -> SourceIdentity:
        assert (image, chosen.source_key) == ("Win11", "k")
        assert chosen.publish_name == f"win11-{route.cloud_name}"
        self.looked.append(route.cloud_name)
        return IDENTITY

    def brought(self, monkeypatch: pytest.MonkeyPatch) -> State[Any]:
        monkeypatch.setattr(fan_out, "master_of", lambda *_, **__: SimpleNamespace(vm="/dc/vm/w"))
        for name in ("preflight_master", "exported", "looked_at"):
            monkeypatch.setattr(fan_out, name, getattr(self, name))
        monkeypatch.setattr(fan_out, "carried_out", lambda *_: NEW)
        places = [destination("b", cloud, f"-{cloud}") for cloud in ("aws", "azure", "gcp")]
        state: State[Any] = fan_out.fan_out.fn(None, places, "/dc/vm/w", hypervisor="h")
        return state


def test_every_target_is_asked_before_a_master_image_is_exported(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    masters = Masters({"azure": PermissionMissing("Cannot export: no rights.", hint="Ask.")})
    state = masters.brought(monkeypatch)
    assert sorted(masters.asked) == ["aws", "azure", "gcp"]
    assert (masters.exports, sorted(masters.looked)) == (1, ["aws", "gcp"])
    assert state.name == "PartiallyPublished"
    assert "azure/r/b: failed: Cannot export: no rights. [permission-missing] Ask." in str(
        state.message
    )
    assert [row["outcome"] for row in tables[0]["table"]] == ["published", "failed", "published"]


def test_a_master_image_that_no_target_takes_is_not_exported(
    tables: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds = ("aws", "azure", "gcp")
    masters = Masters({cloud: CloudThrottled(f"Cannot ask {cloud}.") for cloud in clouds})
    state = masters.brought(monkeypatch)
    assert (masters.exports, masters.looked) == (0, [])
    assert (state.is_failed(), state.name) == (True, "Failed")
    assert all(f"Cannot ask {cloud}." in str(state.message) for cloud in clouds)
    assert [row["outcome"] for row in tables[0]["table"]] == ["failed"] * 3


# --- who starts it, and who cleans up after it -------------------------------------------------


def reference(block: Any) -> dict[str, Any]:
    return {"$ref": {"block_document_slug": f"kind/{block.name}"}}


def staged(monkeypatch: pytest.MonkeyPatch, **chosen: Any) -> list[tuple[str, dict[str, Any], str]]:
    started: list[tuple[str, dict[str, Any], str]] = []

    async def run(deployment: str, parameters: dict[str, Any], key: str) -> None:
        started.append((deployment, parameters, key))

    monkeypatch.setattr(dr_prestage, "run_elsewhere", run)
    monkeypatch.setattr(dr_prestage, "reference", reference)
    monkeypatch.setattr(
        dr_prestage, "completed", lambda *_: HandedOver("done", already_there=False)
    )
    source = SimpleNamespace(name="a", work_pool="onprem")
    places = [destination("b", "aws", "-1"), destination("c", "gcp")]
    run_flow: Any = dr_prestage.dr_prestage.fn
    asyncio.run(run_flow(source, places, ["gold"], PrepareOptions(), **chosen))
    return started


def test_an_image_with_several_destinations_is_brought_by_one_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((deployment, parameters, _key),) = staged(monkeypatch)
    assert deployment == "fan-out/onprem"
    assert [item["suffix"] for item in parameters["destinations"]] == ["-1", ""]
    known = set(fan_out.fan_out.parameters.properties)
    assert set(parameters) <= known


def test_what_is_composed_at_the_site_is_brought_to_each_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = staged(monkeypatch, engine=EnginePlace.SITE)
    assert [item[0] for item in started] == ["pvs-to-pvs/onprem"] * 2
    assert started[0][1]["publish_name"] == "gold-1"
    assert len({item[2] for item in started}) == 2


@pytest.mark.parametrize(
    ("ended", "name", "found"),
    [
        (Failed(name=PARTIALLY_PUBLISHED, message="aws: published"), "PartiallyStaged", "aws: pub"),
        (Failed(message="no target"), "Failed", "Cannot bring gold to b, c at the other site"),
        (Completed(message="all there"), "Completed", "gold to b, c: all there"),
    ],
    ids=["partly", "nowhere", "everywhere"],
)
def test_an_image_that_reached_some_of_its_destinations_is_staged_in_part(
    ended: State[Any], name: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(name="run", id="r", state=ended)
    state = staged_state(monkeypatch, run)
    assert (state.name, found in str(state.message)) == (name, True), state


def staged_state(monkeypatch: pytest.MonkeyPatch, run: Any) -> State[Any]:
    async def elsewhere(*_: Any) -> Any:
        return run

    monkeypatch.setattr(dr_prestage, "run_elsewhere", elsewhere)
    monkeypatch.setattr(dr_prestage, "reference", reference)
    source = SimpleNamespace(name="a", work_pool="onprem")
    places = [destination("b", "aws", "-1"), destination("c", "gcp")]
    run_flow: Any = dr_prestage.dr_prestage.fn
    state: State[Any] = asyncio.run(run_flow(source, places, ["gold"], PrepareOptions()))
    return state


def ended_run(**parameters: Any) -> FlowRun:
    return FlowRun(flow_id="0" * 32, name="x", state=Cancelled(), parameters=parameters)


def test_the_janitor_looks_in_every_target_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "load_site", lambda name: f"site {name}")
    monkeypatch.setattr(janitor, "load_target", lambda slug: f"target {slug}")

    def block(slug: str) -> dict[str, Any]:
        return {"$ref": {"block_document_slug": slug}}

    places = [
        {"site": block("imageport-site/b"), "cloud": block("imageport-aws-target/x")},
        {"site": block("imageport-site/c"), "cloud": block("imageport-gcp-target/y")},
    ]
    both = [
        ("site b", "target imageport-aws-target/x"),
        ("site c", "target imageport-gcp-target/y"),
    ]
    assert janitor._blocks_of(ended_run(destinations=places)) == (both, [])
    one = {"target": block("imageport-site/b"), "cloud": block("imageport-aws-target/x")}
    assert janitor._blocks_of(ended_run(**one)) == (both[:1], [])
    assert janitor._blocks_of(ended_run(image="gold")) == ([], [])

    def load_target(slug: str) -> str:
        if slug.endswith("/x"):
            raise InputError(f"Cannot load the target block '{slug}'.")
        return f"target {slug}"

    monkeypatch.setattr(janitor, "load_target", load_target)
    named, (problem,) = janitor._blocks_of(ended_run(destinations=places))
    assert named == both[1:]  # a block that was deleted keeps no other target dirty
    assert "imageport-aws-target/x" in problem


def test_the_export_of_a_run_whose_form_calls_the_machine_an_image_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[dict[str, Any]] = []

    async def run(_name: str, **words: Any) -> None:
        started.append(words["parameters"])

    monkeypatch.setattr(janitor, "arun_deployment", run)
    monkeypatch.setattr(janitor, "load_site", lambda _: SimpleNamespace(work_pool="onprem"))
    source = {"$ref": {"block_document_slug": "imageport-site/a"}}
    common = {"hypervisor": "h", "source": source}
    assert not janitor._release_export(ended_run(**common, image="/dc/vm/win11"))
    assert not janitor._release_export(ended_run(**common, vm="/dc/vm/w", image="gold"))
    assert not janitor._release_export(ended_run(**common, images=["/dc/vm/win11"]))
    assert [(item["vm"], item.get("image")) for item in started] == [
        ("/dc/vm/win11", None), ("/dc/vm/w", "gold"),
    ]  # fmt: skip


def test_the_demo_tells_the_lines_of_several_targets_apart() -> None:
    said: list[tuple[str, str]] = []
    watch = RunWatch(SimpleNamespace(), "run", SimpleNamespace(say=lambda *line: said.append(line)))  # type: ignore[arg-type]
    for cloud in ("aws/eu-1/b", "gcp/eu-2/b"):
        for _ in range(2):
            watch._show_record({"level": 20, "message": f"engine: [{cloud}] starting libguestfs"})
    watch._show_record({"level": 20, "message": "engine: starting libguestfs"})
    watch._show_record({"level": 20, "message": "upload: [aws/eu-1/b] 4 of 8 MiB, 38 MiB/s"})
    assert said == [
        ("engine", "aws: starting libguestfs"),
        ("engine", "gcp: starting libguestfs"),
        ("engine", "starting libguestfs"),
    ]
