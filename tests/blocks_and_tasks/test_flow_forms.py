"""Run forms, deployments and automations agree with the code."""

import importlib
import json
import re
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Crashed, Failed, Running

from blocks import TARGETS
from flows import _automations, register
from flows._hand_over import ALREADY_THERE, completed
from flows._marks import AUTO_RESUME, MOST_ATTEMPTS, TAG
from flows.janitor import _has_ended
from imageport.errors import InputError, TransferError

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = DOCUMENT["deployments"]
IDS = [f"{item['entrypoint']} {item['name']}" for item in DEPLOYMENTS]


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = deployment["entrypoint"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    return found


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)
def test_every_parameter_of_a_run_form_is_explained(deployment: dict[str, Any]) -> None:
    schema = flow_of(deployment).parameters
    for name, value in schema.properties.items():
        assert value.get("description", "").endswith("."), name
        assert not value.get("writeOnly"), f"{name}: a secret would be stored in plain text"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)
def test_a_deployment_gives_only_parameters_that_its_flow_has(deployment: dict[str, Any]) -> None:
    known = set(flow_of(deployment).parameters.properties)
    assert set(deployment.get("parameters", {})) <= known


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)
def test_a_deployment_bears_the_name_of_its_work_pool(deployment: dict[str, Any]) -> None:
    # run_deployment finds another site's deployment by that site's work pool.
    assert deployment["name"] == deployment["work_pool"]["name"]
    assert deployment["entrypoint"].startswith("flows.")


def test_nothing_is_pulled_because_the_code_is_installed() -> None:
    assert DOCUMENT["pull"] == []


def test_every_flow_file_is_deployed() -> None:
    files = {path.stem for path in (ROOT / "flows").glob("*.py") if not path.stem.startswith("_")}
    deployed = {item["entrypoint"].split(".")[1] for item in DEPLOYMENTS}
    assert files - {"register"} == deployed


def test_disaster_recovery_and_the_janitor_run_by_themselves() -> None:
    scheduled = {item["entrypoint"].split(".")[1] for item in DEPLOYMENTS if "schedules" in item}
    assert scheduled == {"dr_prestage", "janitor"}


def test_only_runs_that_are_fenced_by_a_lease_are_resumed() -> None:
    resumed = {
        item["entrypoint"].split(".")[1] for item in DEPLOYMENTS if AUTO_RESUME in item["tags"]
    }
    assert resumed == {"pvs_to_pvs", "mcs_to_pvs", "fan_out", "publish_to_store"}


def test_a_failing_janitor_starts_no_janitor() -> None:
    tagged = {item["entrypoint"].split(".")[1] for item in DEPLOYMENTS if TAG in item["tags"]}
    brings = {"pvs_to_pvs", "mcs_to_pvs", "fan_out", "dr_prestage", "cloud_burst"}
    assert tagged == {*brings, "publish_to_store"}


def test_choices_are_dropdowns_and_options_a_group() -> None:
    schema = flow_of(DEPLOYMENTS[0]).parameters
    assert schema.definitions["IfExists"]["enum"]
    assert schema.properties["if_exists"]["default"] in schema.definitions["IfExists"]["enum"]
    assert schema.definitions["PrepareOptions"]["additionalProperties"] is False
    assert schema.required == ["source", "target", "cloud", "image"]


def test_pools_let_runs_outlive_their_worker_and_show_signs_of_life() -> None:
    properties = register.pool_template()["variables"]["properties"]
    assert properties["stream_output"]["default"] is False
    assert properties["env"]["default"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


def test_automations_look_at_our_runs_only() -> None:
    made = _automations.automations(uuid4())
    assert len({automation.name for automation in made}) == 3
    for automation in made:
        related = automation.trigger.match_related  # type: ignore[union-attr]
        tag = TAG if "resumed" not in automation.name else AUTO_RESUME
        assert related["prefect.resource.id"] == [f"prefect.tag.{tag}"] or related[
            "prefect.resource.id"
        ] == (f"prefect.tag.{tag}")


def a_run(state: State[Any], *, tags: list[str] | None = None, run_count: int = 1) -> FlowRun:
    return FlowRun(
        id=uuid4(), flow_id=uuid4(), name="x", state=state, tags=tags or [], run_count=run_count,
        start_time=datetime.now(UTC),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "ended"),
    [
        (a_run(Cancelled()), True),
        (a_run(Failed()), True),
        (a_run(Running()), False),
        (a_run(Crashed()), True),
        (a_run(Crashed(), tags=[AUTO_RESUME]), False),
        (a_run(Crashed(), tags=[AUTO_RESUME], run_count=MOST_ATTEMPTS), True),
        (a_run(Cancelled(), tags=[AUTO_RESUME]), True),
    ],
    ids=["cancelled", "failed", "running", "crashed", "resumed-soon", "given-up", "stopped"],
)
def test_the_janitor_leaves_alone_what_will_go_on(run: FlowRun, ended: bool) -> None:
    assert _has_ended(run) is ended


def test_a_run_elsewhere_that_failed_is_an_error_here() -> None:
    with pytest.raises(TransferError, match="Cannot publish 'gold' at the other site"):
        completed(a_run(Failed(message="Cannot write: full. [share-full]")), "publish 'gold'")


def test_a_run_elsewhere_says_whether_anything_moved() -> None:
    same = State(type=StateType.COMPLETED, name=ALREADY_THERE, message="gold.vhdx")
    assert completed(a_run(same), "x").already_there
    assert not completed(a_run(State(type=StateType.COMPLETED, message="new")), "x").already_there


def test_a_block_of_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="imageport-smb-shar"):
        register.save_blocks([{"type": "imageport-smb-shar", "name": "x", "values": {}}])


def saved_without_a_server(
    documents: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Block]:
    """Save blocks as the command does, into the dictionary that is returned."""
    saved: dict[str, Block] = {}

    def save(block: Block, name: str, *, overwrite: bool) -> None:
        assert overwrite
        saved[f"{block.get_block_type_slug()}/{name}"] = block

    for kind in register.KINDS:
        monkeypatch.setattr(kind, "save", save)
    monkeypatch.setattr(register.Block, "load", saved.__getitem__)
    register.save_blocks(documents)
    return saved


def test_the_blocks_of_the_production_guide_are_taken_and_are_those_of_the_deployments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    saved = saved_without_a_server(json.loads(text), monkeypatch)
    (command,) = re.findall(r"flows\.register --blocks .* --target (\S+)", page)
    named = set(re.findall(r"block_document_slug: (\S+) }", (ROOT / "prefect.yaml").read_text()))
    assert {*named, command} - {"imageport-aws-target/aws"} <= set(saved)
    site: Any = saved["imageport-site/cloud"]
    assert site.work_pool in {item["name"] for item in DEPLOYMENTS}


def test_whatever_a_target_nests_is_saved_by_the_same_file() -> None:
    nested = {
        kind
        for target in TARGETS
        for field in target.model_fields.values()
        for kind in typing.get_args(field.annotation)
        if isinstance(kind, type) and issubclass(kind, Block)
    }
    assert {kind.get_block_type_slug() for kind in nested} >= {"aws-credentials", "gcp-credentials"}
    assert nested <= set(register.KINDS)


def test_another_target_may_be_the_default_of_every_deployment() -> None:
    changed = register.with_target(DOCUMENT, "imageport-azure-target/azure")
    text = yaml.safe_dump(changed["deployments"])
    assert "imageport-azure-target/azure" in text
    assert "imageport-aws-target" not in text
    assert "imageport-site/onprem" in text
    assert register.with_target(DOCUMENT, "") == DOCUMENT
    with pytest.raises(InputError, match="imageport-azure-targt"):
        register.with_target(DOCUMENT, "imageport-azure-targt/azure")


def test_the_cloud_of_a_run_is_a_choice_wherever_a_run_has_one() -> None:
    for deployment in DEPLOYMENTS:
        schema = flow_of(deployment).parameters
        if "cloud" in schema.properties:
            choices = {str(item.get("$ref")) for item in schema.properties["cloud"]["anyOf"]}
            assert {
                f"#/definitions/{name}" for name in ("AwsTarget", "AzureTarget", "GcpTarget")
            } <= choices
            for name in ("AwsTarget", "AzureTarget", "GcpTarget"):
                assert schema.definitions[name]["block_type_slug"]


def test_a_site_looks_for_trouble_from_its_own_worker() -> None:
    pools = {item["name"] for item in DEPLOYMENTS if "site_doctor" in item["entrypoint"]}
    assert pools == {item["name"] for item in DEPLOYMENTS}
