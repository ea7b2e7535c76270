"""What the documentation promises exists, and what exists is documented."""

import argparse
import importlib
import inspect
import re
from pathlib import Path

import pytest

from blocks import BLOCKS
from imageport.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FLOWS = {
    "flows.pvs_to_pvs": "pvs_to_pvs",
    "flows.mcs_to_pvs": "mcs_to_pvs",
    "flows.publish_to_store": "publish_to_store",
    "flows.dr_prestage": "dr_prestage",
    "flows.fan_out": "fan_out",
    "flows.cloud_burst": "cloud_burst",
    "flows.janitor": "janitor",
    "flows.release_export": "release_export",
    "flows.doctor": "site_doctor",
}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_of_a_command_is_on_the_command_page(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    options = {
        word for action in parser._actions for word in action.option_strings if word[:2] == "--"
    } - {"--help"}
    start = f"| `imageport {command}"
    row = next(line for line in page("docs/cli.md").splitlines() if line.startswith(start))
    documented = set(re.findall(r"`(--[a-z-]+)`", row))
    assert options == documented


def test_no_flow_is_missing_from_the_list_above() -> None:
    files = {f"flows.{path.stem}" for path in (ROOT / "flows").glob("[a-z]*.py")}
    assert files - {"flows.register"} == set(FLOWS)


@pytest.mark.parametrize(("module", "function"), FLOWS.items())
def test_every_parameter_of_a_flow_is_on_the_api_page(module: str, function: str) -> None:
    flow = getattr(importlib.import_module(module), function)
    section = page("docs/api.md").split(f"**`{flow.name}/", 1)[1].split("\n**`", 1)[0]
    assert set(inspect.signature(flow.fn).parameters) == set(
        re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    )


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_every_block_type_is_in_the_production_guide(block: type) -> None:
    assert f"`{block.get_block_type_slug()}`" in page("docs/production.md")  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readme_commands_exist_and_can_be_executed() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", page("README.md"), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line]
    assert commands == ["./demo", "./test"]
    for command in commands:
        assert (ROOT / command).stat().st_mode & 0o111


def test_the_deployments_named_in_the_pages_are_those_of_prefect_yaml() -> None:
    text = page("prefect.yaml")
    deployed = {
        f"{name.replace('_', '-')}/{pool}"
        for pool, name in re.findall(r"- name: (\w+)\n    entrypoint: flows\.\w+\.(\w+)", text)
    }
    named = set(re.findall(r"\*\*`([a-z-]+/[a-z]+)`\*\*", page("docs/api.md")))
    assert named == deployed
