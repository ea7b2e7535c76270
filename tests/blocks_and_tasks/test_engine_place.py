"""Where the engine composes: what the flow calls for it, and what it tells other runs."""

from __future__ import annotations

import asyncio
import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from flows._hand_over import HandedOver
from imageport.workflow.choices import EnginePlace
from tasks.models import GenerationResult, Route, SourceIdentity
from tasks.options import PrepareOptions

pvs_to_pvs = importlib.import_module("flows.pvs_to_pvs")
_bring = importlib.import_module("flows._bring")
cloud_burst = importlib.import_module("flows.cloud_burst")
dr_prestage = importlib.import_module("flows.dr_prestage")
ROUTE = Route(source="a", target="b", cloud="x/y", place="aws/r/b")
IDENTITY = SourceIdentity(
    image="gold", source_key="k", options_key="o", engine_id="e", size_bytes=1, prepared_id=""
)


class FakeTask:
    """Notes its calls; its first result is not there any more if ``gone``."""

    def __init__(self, calls: list[tuple[Any, ...]], name: str) -> None:
        self.calls, self.name = calls, name

    def __call__(self, *arguments: Any) -> GenerationResult:
        self.calls.append((self.name, *arguments))
        return GenerationResult(
            id=f"{self.name}-1", image="gold", role="U", size_bytes=1, snapshot_id="snap"
        )

    def with_options(self, **options: Any) -> FakeTask:
        assert options == {"refresh_cache": True}
        return FakeTask(self.calls, f"{self.name} again")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []
    for name in ("preflight", "upload", "compose_and_upload", "prepare"):
        monkeypatch.setattr(_bring, name, FakeTask(made, name))
    monkeypatch.setattr(pvs_to_pvs, "route_between", lambda *_: ROUTE)
    monkeypatch.setattr(_bring, "identify", lambda *_: IDENTITY)
    monkeypatch.setattr(_bring, "still_there", lambda *_: True)
    published = HandedOver("gold.vhdx", already_there=False)
    monkeypatch.setattr(_bring, "publish_at_target", lambda *_, **__: published)
    return made


@pytest.mark.parametrize(
    ("chosen", "steps"),
    [
        ({}, ["preflight", "upload", "prepare"]),
        ({"engine": EnginePlace.CLOUD}, ["preflight", "upload", "prepare"]),
        ({"engine": EnginePlace.SITE}, ["preflight", "compose_and_upload", "prepare"]),
    ],
    ids=["default", "cloud", "site"],
)
def test_the_engines_place_decides_how_the_image_is_uploaded(
    calls: list[tuple[Any, ...]], chosen: dict[str, Any], steps: list[str]
) -> None:
    pvs_to_pvs.pvs_to_pvs.fn(None, None, None, "gold", **chosen)
    assert [call[0] for call in calls] == steps
    assert calls[-1][2] == f"{steps[1]}-1"


def test_an_upload_that_the_cloud_lost_is_made_again(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"compose_and_upload-1"}
    monkeypatch.setattr(_bring, "still_there", lambda _route, found: found not in gone)
    pvs_to_pvs.pvs_to_pvs.fn(None, None, None, "gold", engine=EnginePlace.SITE)
    assert [call[0] for call in calls] == [
        "preflight", "compose_and_upload", "compose_and_upload again", "prepare",
    ]  # fmt: skip
    assert calls[1][1:] == calls[2][1:]


def test_a_burst_passes_the_engines_place_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    async def run(deployment: str, parameters: dict[str, Any], _key: str) -> None:
        seen.update(parameters, deployment=deployment)

    monkeypatch.setattr(cloud_burst, "run_elsewhere", run)
    monkeypatch.setattr(cloud_burst, "reference", lambda block: block)
    outcome = HandedOver("gold.vhdx", already_there=False)
    monkeypatch.setattr(cloud_burst, "completed", lambda *_: outcome)
    site = SimpleNamespace(work_pool="onprem")
    cloud_burst.cloud_burst.fn(site, None, None, "gold", engine=EnginePlace.SITE)
    assert seen["engine"] == "site"
    assert PrepareOptions.model_validate(seen["options"]) == PrepareOptions()
    assert (seen["deployment"], seen["image"]) == ("pvs-to-pvs/onprem", "gold")
    vcenter, vm = SimpleNamespace(), "/dc/vm/masters/win11"
    cloud_burst.cloud_burst.fn(site, None, None, vm, hypervisor=vcenter)
    assert (seen["deployment"], seen["vm"]) == ("mcs-to-pvs/onprem", vm)
    assert (seen["hypervisor"], seen["publish_name"]) == (vcenter, "win11")


def test_targets_of_two_clouds_that_share_a_name_are_two_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[str] = []

    async def run(_deployment: str, _parameters: dict[str, Any], key: str) -> None:
        keys.append(key)

    def reference(block: Any) -> dict[str, Any]:
        return {"$ref": {"block_document_slug": f"{block.kind}/{block.name}"}}

    monkeypatch.setattr(dr_prestage, "run_elsewhere", run)
    monkeypatch.setattr(dr_prestage, "reference", reference)
    outcome = HandedOver("gold.vhdx", already_there=False)
    monkeypatch.setattr(dr_prestage, "completed", lambda *_: outcome)
    site = SimpleNamespace(kind="site", name="cloud", work_pool="onprem")
    destinations = [
        SimpleNamespace(site=site, cloud=SimpleNamespace(kind=kind, name="prod"), suffix="")
        for kind in ("aws", "azure")
    ]
    apart = EnginePlace.SITE  # otherwise one run brings the image to both
    asyncio.run(dr_prestage.dr_prestage.fn(site, destinations, ["gold"], engine=apart))
    assert len(set(keys)) == len(keys) == 2


def test_master_images_are_brought_by_the_other_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    async def run(deployment: str, parameters: dict[str, Any], _key: str) -> None:
        asked.append((deployment, parameters))

    def reference(_block: object) -> dict[str, Any]:
        return {"$ref": {"block_document_slug": "kind/name"}}

    monkeypatch.setattr(dr_prestage, "run_elsewhere", run)
    monkeypatch.setattr(dr_prestage, "reference", reference)
    outcome = HandedOver("gold.vhdx", already_there=False)
    monkeypatch.setattr(dr_prestage, "completed", lambda *_: outcome)
    site = SimpleNamespace(work_pool="onprem", name="onprem")
    to = [dr_prestage.Destination.model_construct(site=site, cloud=SimpleNamespace())]
    vcenter = SimpleNamespace()
    asyncio.run(dr_prestage.dr_prestage.fn(site, to, ["/dc/vm/gold"], hypervisor=vcenter))
    ((deployment, parameters),) = asked
    assert deployment == "mcs-to-pvs/onprem"
    assert parameters["vm"] == "/dc/vm/gold"
    assert "image" not in parameters
    none = asyncio.run(dr_prestage.dr_prestage.fn(site, to, None, hypervisor=vcenter))
    assert none.type == "FAILED"
