"""Forms and results of tasks: equal to the library's own, and safe to store as JSON."""

import dataclasses
import json
from typing import Any

import pytest
from pydantic import ValidationError

from imageport.compose.contract import EngineOptions, Installer, OwnStep, options_from_json
from imageport.model import GenerationRole
from imageport.state.records import Generation, Publication
from imageport.workflow.choices import PrepareChoices
from tasks.models import GenerationResult, PublicationResult, Route
from tasks.options import InstallerOptions, OwnStepOptions, PrepareOptions

VDA: dict[str, Any] = {
    "software": "vda", "name": "VDA", "version": "2402", "sha256": "0" * 64,
    "path": "vda/setup.exe", "arguments": ("/quiet",),
}  # fmt: skip
OWN: dict[str, Any] = {"point": "first_boot", "path": "own/last.cmd", "required": True}


def test_the_form_has_the_options_of_the_engine_and_no_others() -> None:
    # But for the cloud, which is the target block's.
    engine = [field.name for field in dataclasses.fields(EngineOptions)]
    assert ["cloud", *PrepareOptions.model_fields] == engine


@pytest.mark.parametrize(
    ("form", "kind"), [(InstallerOptions, Installer), (OwnStepOptions, OwnStep)]
)
def test_what_is_nested_is_the_engines_too(form: type[Any], kind: type[Any]) -> None:
    fields = dataclasses.fields(kind)
    assert list(form.model_fields) == [field.name for field in fields]
    for field in fields:
        wanted = form.model_fields[field.name]
        assert wanted.is_required() is (field.default is dataclasses.MISSING), field.name
        if not wanted.is_required():
            assert wanted.default == field.default, field.name


def test_the_forms_defaults_are_the_engines() -> None:
    assert PrepareOptions().choices("aws") == PrepareChoices()


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_the_cloud_is_the_routes(cloud: str) -> None:
    route = Route(source="a", target="b", cloud="x/y", place=f"{cloud}/region-1/b")
    assert PrepareOptions().choices(route.cloud_name).engine.cloud == cloud


@pytest.mark.parametrize(
    ("drivers", "cloud", "taken", "uses_payload"),
    [
        ((), "azure", (), True),
        (("ena",), "azure", ("ena",), True),
        (("aws/ena", "nic"), "aws", ("aws/ena", "nic"), True),
        (("aws/ena", "nic"), "azure", ("nic",), True),
        (("AWS\\ena", "azure/mana"), "azure", ("azure/mana",), True),
        (("aws/ena",), "azure", ("aws/ena",), False),
    ],
    ids=["none-named", "any-cloud", "own", "others", "backslash", "only-others"],
)
def test_a_driver_folder_of_another_cloud_is_left_out(
    drivers: tuple[str, ...], cloud: str, taken: tuple[str, ...], uses_payload: bool
) -> None:
    options = PrepareOptions(drivers=drivers)
    assert options.choices(cloud).engine.drivers == taken
    assert options.uses_payload(cloud) is uses_payload


def test_the_boot_machine_waits_longer_than_first_boot_may_take() -> None:
    for seconds in (60, 1200, 7200):
        choices = PrepareOptions(first_boot_deadline_seconds=seconds).choices("aws")
        assert choices.boot_deadline_seconds >= 3 * seconds + 1800
    with pytest.raises(ValidationError):
        PrepareOptions(first_boot_deadline_seconds=7201)


def test_what_is_chosen_reaches_the_engine() -> None:
    chosen = PrepareOptions(
        drivers=("ena",),
        list_of_ddcs=("ddc1.example", "ddc2.example"),
        required_nic_ids=(r"PCI\VEN_1D0F&DEV_EC20",),
        recommended=("time",),
        first_boot_deadline_seconds=600,
        first_boot_attempts=2,
        azure_vm_agent="azure/agent.msi",
        installers=(InstallerOptions(**VDA),),
        own_steps=(OwnStepOptions(**OWN),),
        vda_reconfigure=("/controllers", "ddc1.example"),
        rearm="off",
        leave_domain=True,
        serial_console="on",
        convert_to_uefi=True,
        leave_no_trace=True,
    )
    engine = chosen.choices("azure").engine
    assert dataclasses.asdict(engine) == chosen.model_dump(mode="python") | {
        "cloud": "azure",
        "provisioning": "pvs",
    }
    assert isinstance(engine.drivers, tuple)
    assert engine.installers == (Installer(**VDA),)
    assert engine.own_steps == (OwnStep(**OWN),)
    assert PrepareOptions.model_validate_json(chosen.model_dump_json()) == chosen
    # As the catalogue's keys and the engine's job have it: plain JSON.
    assert options_from_json(json.loads(json.dumps(dataclasses.asdict(engine)))) == engine


@pytest.mark.parametrize(
    "values",
    [
        {"clod": "aws"},
        {"cloud": "azure"},
        {"first_boot_attempts": 0},
        {"drivers": "ena"},
        {"rearm": "always"},
        {"serial_console": "off."},
        {"installers": [VDA | {"sha256": "abc"}]},
        {"own_steps": [OWN | {"point": "later"}]},
    ],
    ids=lambda values: next(iter(values)),
)
def test_the_form_refuses_what_the_engine_cannot_do(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PrepareOptions(**values)


def test_the_azure_agent_is_for_images_in_azure_only() -> None:
    options = PrepareOptions(azure_vm_agent="azure/agent.msi", drivers=("aws/ena",))
    assert options.choices("aws").engine.azure_vm_agent == ""
    assert options.choices("azure").engine.azure_vm_agent == "azure/agent.msi"
    assert options.uses_payload("azure")


@pytest.mark.parametrize(
    ("installers", "own_steps", "aws", "azure"),
    [
        ((), (), False, False),
        (("vda/setup.exe",), (), True, True),
        (("azure/agent.exe",), (), False, True),
        ((), ("AWS\\last.cmd",), True, False),
    ],
    ids=["none", "any-cloud", "azure-only", "aws-only"],
)
def test_what_is_below_another_clouds_folder_is_left_out(
    installers: tuple[str, ...], own_steps: tuple[str, ...], aws: bool, azure: bool
) -> None:
    options = PrepareOptions(
        drivers=("gcp/gvnic",),  # no name at all would mean the whole payload
        installers=tuple(InstallerOptions(**VDA | {"path": path}) for path in installers),
        own_steps=tuple(OwnStepOptions(**OWN | {"path": path}) for path in own_steps),
    )
    for cloud, uses in (("aws", aws), ("azure", azure)):
        engine = options.choices(cloud).engine
        assert bool(engine.installers or engine.own_steps) is uses
        assert options.uses_payload(cloud) is uses


@pytest.mark.parametrize("form", [PrepareOptions, InstallerOptions, OwnStepOptions])
def test_every_option_is_described(form: type[Any]) -> None:
    for name, field in form.model_fields.items():
        assert (field.description or "").endswith("."), name


def test_a_result_survives_json() -> None:
    generation = Generation(
        id="u-1", image="gold", target="aws/eu-central-1/cloud", role=GenerationRole.UPLOADED,
        created="2026-01-01T00:00:00+00:00", size_bytes=8, source_key="k", image_digest="d",
        handle={"snapshot_id": "snap-1"}, details={"stats": {"bytes_sent": 3}},
    )  # fmt: skip
    result = GenerationResult.of(generation)
    assert result.figures == {"bytes_sent": 3}
    assert GenerationResult.model_validate_json(result.model_dump_json()) == result
    publication = Publication("smb://files/vdisks", "gold.vhdx", "2026", 8, 1, "d")
    published = PublicationResult.of(publication, already_there=True)
    assert PublicationResult.model_validate_json(published.model_dump_json()) == published


def test_a_route_takes_names_only() -> None:
    with pytest.raises(ValidationError):
        Route(source="onprem", target="cloud", cloud="imageport-aws-target/aws", place="p", x=1)
