"""The options of `imageport prepare` as an operator's file: read whole, refused whole."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from imageport.cli.main import main
from imageport.cli.option_file import chosen_options, options_from
from imageport.compose.contract import EngineOptions, Installer, OwnStep
from imageport.errors import InputError

INSTALLER = {
    "software": "vda",
    "name": "VDA",
    "version": "2402",
    "sha256": "0" * 64,
    "path": "vda/setup.exe",
    "arguments": ["/quiet", "/noreboot"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "options.json"


def written(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value))
    return file


def test_nested_options_are_read(file: Path) -> None:
    own = {"point": "first_boot", "path": "own/last.cmd", "required": True}
    options = options_from(
        written(file, {"installers": [INSTALLER], "own_steps": [own], "rearm": "off"}),
        {"cloud": "azure"},
    )
    arguments = ("/quiet", "/noreboot")
    wanted = Installer("vda", "VDA", "2402", "0" * 64, "vda/setup.exe", arguments)
    assert options.installers == (wanted,)
    assert options.own_steps == (OwnStep("first_boot", "own/last.cmd", required=True),)
    assert (options.cloud, options.rearm) == ("azure", "off")


def test_without_a_file_the_defaults_hold() -> None:
    assert options_from(None, {"cloud": "aws"}) == EngineOptions()


@pytest.mark.parametrize("command", ["inspect", "prepare"])
def test_only_what_is_given_stands_over_the_file(file: Path, command: str) -> None:
    words = [str(written(file, {"cloud": "azure", "provisioning": "mcs"}))]
    needed = ["--target", "aws"] if command == "prepare" else []
    module = importlib.import_module(f"imageport.cli.{command}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)

    def chosen(*given: str) -> tuple[str, str]:
        options = chosen_options(parser.parse_args(["disk", "--options", *words, *needed, *given]))
        return options.cloud, options.provisioning

    assert chosen() == ("aws" if needed else "azure", "mcs")
    assert chosen("--target", "gcp", "--provisioning", "pvs") == ("gcp", "pvs")


def test_everything_wrong_is_told_at_once(file: Path) -> None:
    wrong = {
        "rdp": True,
        "first_boot_attempts": "3",
        "drivers": "ena",
        "recommended": [1],
        "installers": [INSTALLER | {"sha": ""}, {"name": "x"}, "setup.exe"],
        "own_steps": [{"point": "first_boot", "path": "a.cmd", "required": "yes"}],
    }
    with pytest.raises(InputError) as caught:
        options_from(written(file, wrong), {})
    problems = caught.value.fields["problems"]
    for place in (
        "options: found unknown keys ['rdp']",
        "options.first_boot_attempts: found str",
        "options.drivers: found str",
        "options.recommended: found a value that is no text",
        "options.installers[0]: found unknown keys ['sha']",
        "options.installers[1]: found no software, version, sha256, path",
        "options.installers[2]: found str",
        "options.own_steps[0].required: found str",
    ):
        assert [text for text in problems if text.startswith(f"Bad {place}")], place
        assert place in caught.value.message
    assert len(problems) == 8


def test_a_flood_of_problems_is_cut(file: Path) -> None:
    wrong = {"installers": [{"name": number} for number in range(5000)]}
    with pytest.raises(InputError) as caught:
        options_from(written(file, wrong), {})
    assert len(caught.value.fields["problems"]) == 100


def test_values_out_of_bounds_are_told_at_once_too(file: Path) -> None:
    wrong = {"first_boot_attempts": 0, "recommended": ["rdp", "telnet"]}
    with pytest.raises(InputError, match=r"options\.json") as caught:
        options_from(written(file, wrong), {"provisioning": "other"})
    text = " ".join(caught.value.fields["problems"])
    for word in ("rdp", "telnet", "first_boot_attempts", "provisioning"):
        assert word in text


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "no JSON object"), ("{", "Cannot read options"), ("[" * 5000, "Cannot read options")],
    ids=["list", "torn", "deep"],
)
def test_a_file_that_is_no_list_of_options_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        options_from(file, {})


def test_a_file_of_the_wrong_kind_is_not_read(file: Path) -> None:
    with file.open("wb") as made:
        made.truncate(2 * 1024 * 1024)
    with pytest.raises(InputError, match="more than"):
        options_from(file, {})


def test_the_command_ends_with_2_before_it_opens_the_disk(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(file, {"rdp": True, "rearm": 7})
    words = ["prepare", "no-such.vhdx", "--target", "aws", "--plan", "--options", str(file)]
    assert main([*words, "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["error"]["fields"]["problems"]
    assert len(problems) == 2
