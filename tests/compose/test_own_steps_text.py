"""The operator's own files: what they may say, and the line and cause of what they may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.compose.contract import EngineOptions, OwnStep
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.own_steps.file_list import FileAddition, FileList, parse_file_list
from imageport.compose.own_steps.payload_files import added_files, read_text
from imageport.compose.own_steps.registry_text import RegistryEdit, parse_registry_text
from imageport.compose.steps.order import option_refusals
from imageport.compose.steps.own.stage_own_scripts import program, program_name
from imageport.compose.volumes.descriptors import Access
from imageport.errors import InputError

HEAD = "Windows Registry Editor Version 5.00\n\n"
KEY = "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Site]\n"
SECRET = "Tr0ub4dor&3"


def edits(text: str) -> list[RegistryEdit]:
    return list(parse_registry_text((HEAD + text).encode()))


VALUES: dict[str, tuple[str, Value | None]] = {
    "text": ('"a b"', Value.text("a b")),
    "escaped text": ('"C:\\\\x \\"y\\""', Value.text('C:\\x "y"')),
    "number": ("dword:0000001F", Value.dword(31)),
    "bytes": ("hex:01,fe", Value(Kind.BINARY, b"\1\xfe")),
    "no bytes": ("hex:", Value(Kind.BINARY, b"")),
    "bytes over lines": ("hex:01,\\\n  02,\\\n  03", Value(Kind.BINARY, b"\1\2\3")),
    "comma at the end": ("hex:01,", Value(Kind.BINARY, b"\1")),
    "expandable": ("hex(2):25,00,00,00", Value(Kind.EXPAND_SZ, b"%\0\0\0")),
    "list": ("hex(7):41,00,00,00,00,00", Value.texts(["A"])),
    "quad": ("hex(b):01,00,00,00,00,00,00,00", Value(Kind.QWORD, b"\1" + bytes(7))),
    "nothing typed": ("hex(0):", Value(Kind.NONE, b"")),
    "goes": ("-", None),
}


@pytest.mark.parametrize("name", VALUES)
def test_data_is_read_as(name: str) -> None:
    text, value = VALUES[name]
    key, edit = edits(f'{KEY}"n"={text}\n')
    assert (key.name, key.deletes) == (None, False)
    assert (edit.line, edit.hive, edit.key, edit.name) == (4, "SOFTWARE", "Site", "n")
    assert edit.value == value
    assert edit.deletes is (value is None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_both_encodings_and_line_ends_are_read(encoding: str, newline: str) -> None:
    text = f'{HEAD}; Stra\u00dfe\n{KEY}@="Stra\u00dfe"\n'.replace("\n", newline)
    _, edit = parse_registry_text(text.encode(encoding))
    assert (edit.name, edit.value) == ("", Value.text("Stra\u00dfe"))


def test_keys_are_named_without_case_and_deleted_with_a_minus() -> None:
    first, second = edits(
        "[hkey_local_machine\\system\\CurrentControlSet\\Services\\x]\n"
        "[-HKEY_LOCAL_MACHINE\\SOFTWARE\\Old]\n"
    )
    assert (first.hive, first.key) == ("SYSTEM", "CurrentControlSet\\Services\\x")
    assert (second.key, second.deletes) == ("Old", True)


SERVICE = "HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services"
REFUSED: dict[str, tuple[str, str]] = {
    "user's hive": ("[HKEY_CURRENT_USER\\Software]\n", "line 3: needed a key below"),
    "another hive": ("[HKEY_LOCAL_MACHINE\\SAM\\x]\n", "line 3: needed a key below"),
    "short name": ("[HKLM\\SOFTWARE\\x]\n", "line 3: needed a key below"),
    "empty part": ("[HKEY_LOCAL_MACHINE\\SOFTWARE\\\\x]\n", "line 3: needed a key below"),
    "value first": ('"a"="b"\n', "line 3: a value needs a key before it"),
    "value of a deleted key": (f'[-{KEY[1:]}"a"="b"\n', "line 4: a value needs a key"),
    "no data": (f'{KEY}"a"\n', "line 4: needed [KEY], [-KEY]"),
    "text over lines": (f'{KEY}"a"="b\nc"\n', "line 4: needed -"),
    "text and more": (f'{KEY}"a"="b" ; comment\n', "line 4: needed -"),
    "unknown escape": (f'{KEY}"a"="\\n"\n', "line 4: needed -"),
    "unknown type": (f'{KEY}"a"=hex(8):00\n', "line 4: needed hex(TYPE)"),
    "digit missing": (f'{KEY}"a"=hex:0x1\n', "line 4: needed -"),
    "empty byte": (f'{KEY}"a"=hex:01,,02\n', "line 4: needed bytes of two digits"),
    "half a number": (f'{KEY}"a"=hex(4):01\n', "line 4: found 1 bytes, needed 4"),
    "odd text": (f'{KEY}"a"=hex(1):41\n', "line 4: found 1 bytes of text"),
    "data in pieces": (f'{KEY}"a"=hex:{"0," * 16_345}\n', "line 4: a value's data is longer"),
    "not ended": (f'{KEY}\n"a"=hex:01,\\\n', "line 5: the value does not go on"),
    "long key": (f"[HKEY_LOCAL_MACHINE\\SOFTWARE\\{'x' * 256}]\n", "line 3: a key's name"),
    "deep key": ("[HKEY_LOCAL_MACHINE\\SOFTWARE" + "\\x" * 65 + "]\n", "line 3: a key's name"),
    "own service": (f'[{SERVICE}\\imageportfirstboot]\n"Start"=dword:4\n', "line 3: service"),
    "own service's key": (f"[-{SERVICE}\\ImageportFirstBoot\\x]\n", "line 3: service"),
    "own service in a set": (
        "[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet002\\Services\\ImageportFirstBoot]\n",
        "line 3: service ImageportFirstBoot is first boot's own",
    ),
    "all services": (f"[-{SERVICE}]\n", "line 3: Windows does not start"),
    "a whole set": ("[-HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001]\n", "line 3: Windows does not"),
    "a whole hive": ("[-HKEY_LOCAL_MACHINE\\SOFTWARE]\n", "line 3: Windows does not start"),
    "all of Windows": ("[-HKEY_LOCAL_MACHINE\\SOFTWARE\\microsoft\\WINDOWS]\n", "line 3: Windows"),
    "which set starts": (
        '[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n"Default"=dword:2\n',
        "line 3: the choice of the control set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_registry_text_is_refused_with_line_and_cause(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(InputError) as raised:
        edits(text)
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: needed 'Windows Registry Editor"),
        (b"REGEDIT4\r\n", "line 1: needed 'Windows Registry Editor"),
        (b"\xff\xfe\x41", "line 1: found no UTF-16 or UTF-8"),
        (b"\x80", "line 1: found no UTF-16 or UTF-8"),
    ],
)
def test_what_is_no_registry_text_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_registry_text(data)


@pytest.mark.parametrize("line", [f'"p"="{SECRET}', f"[{SECRET}]", f'"{SECRET}"=x', SECRET])
def test_a_message_never_quotes_the_line(line: str) -> None:
    with pytest.raises(InputError) as raised:
        edits(f"{KEY}{line}\n")
    assert SECRET not in raised.value.message


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    found: tuple[RegistryEdit, ...] = ()
    problem = "line "
    try:
        found = parse_registry_text((HEAD + text).encode("utf-8", "replace"))
    except InputError as error:
        problem = error.message
    assert problem.startswith("line ")
    assert all(edit.hive in {"SYSTEM", "SOFTWARE"} for edit in found)


def files(**document: object) -> FileList:
    return parse_file_list(json.dumps(document).encode())


def test_a_file_list_is_read() -> None:
    found = files(
        add=[{"path": "\\Program Files\\Site\\a.ini", "from": "own/a.ini", "access": "users-read"}],
        remove=[{"path": "Windows/Temp/x"}],
    )
    addition = FileAddition("Program Files/Site/a.ini", "own/a.ini", Access.USERS_READ)
    assert found == FileList(("Windows/Temp/x",), (addition,))


def entry(path: str) -> dict[str, str]:
    return {"path": path, "from": "a", "access": "administrators-only"}


LISTS: dict[str, tuple[dict[str, object], str]] = {
    "nothing": ({}, "it adds and removes nothing"),
    "unknown key": ({"copy": []}, "unknown key 'copy'"),
    "no list": ({"add": {}}, "add: needed a list"),
    "too many": ({"remove": [{"path": "a"}] * 1001}, "remove: needed a list of 1000"),
    "unknown field": ({"add": [{**entry("a"), "mode": "x"}]}, "add[0]: needed an object with"),
    "missing field": ({"add": [{"path": "a"}]}, "add[0]: needed an object with the keys path"),
    "no text": ({"remove": [{"path": 1}]}, "remove[0]: needed texts"),
    "open to all": ({"add": [{**entry("a"), "access": "everyone"}]}, "add[0].access: needed"),
    "upwards": ({"add": [entry("Windows/../x")]}, "add[0].path: needed a path"),
    "empty": ({"remove": [{"path": "\\"}]}, "remove[0].path: needed a path"),
    "long": ({"remove": [{"path": "x" * 241}]}, "remove[0].path: needed a path"),
    "drive": ({"add": [entry("C:\\x")]}, "add[0].path: holds a name that Windows does not allow"),
    "stream": ({"add": [entry("x.txt:y")]}, "holds a name that Windows does not allow"),
    "device": ({"add": [entry("Site/nul.txt")]}, "holds a name that Windows does not allow"),
    "dot": ({"add": [entry("Site./x")]}, "ends with a dot"),
    "short name": ({"remove": [{"path": "Windows/IMAGEP~1"}]}, "a short name (~1)"),
    "a hive": ({"add": [entry("Windows/System32/CONFIG/SOFTWARE")]}, "registry's hives"),
    "a hive's log": ({"remove": [{"path": "windows\\system32\\config\\x"}]}, "registry's hives"),
    "own folder": ({"add": [entry("Windows/ImageportFirstBoot/x")]}, "first boot's own folder"),
    "above the hives": ({"remove": [{"path": "Windows/System32"}]}, "holds the registry's hives"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_list_is_refused_with_its_place(name: str) -> None:
    document, message = LISTS[name]
    with pytest.raises(InputError) as raised:
        files(**document)
    assert message in raised.value.message


def test_everything_wrong_with_a_list_is_said_at_once() -> None:
    with pytest.raises(InputError) as raised:
        files(add=[entry("C:\\x"), entry("a/../b")], remove=[{"path": ""}], more=1)
    places = ("unknown key 'more'", "add[0].path", "add[1].path", "remove[0].path")
    assert all(place in raised.value.message for place in places)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{\n\n  nonsense", "line 3: found no JSON"),
        (b"[]", "line 1: needed an object"),
        (b"\xff", "line 1: found no UTF-8"),
        (b'{"add": [], "add": []}', "a key stands twice"),
        (b"[" * 200_000, "line 1: found"),
        (b"[" + b"1" * 5000 + b"]", "line 1: found a number of too many digits"),
    ],
)
def test_what_is_no_list_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_file_list(data)


OPTIONS: dict[str, tuple[OwnStep, str]] = {
    "point": (OwnStep("before", "a.reg"), "own_steps[0].point: 'before' is not offline_before"),
    "script offline": (OwnStep("offline_after", "a.cmd"), "is no .reg or .json file"),
    "text at first boot": (OwnStep("first_boot", "a.reg"), "is no .cmd or .ps1 file"),
    "batch": (OwnStep("first_boot", "a.bat"), "is no .cmd or .ps1 file"),
    "name": (OwnStep("first_boot", "my script.cmd"), "has a name that is not plain"),
    "percent": (OwnStep("first_boot", "%x%/a.cmd"), "has a name that is not plain"),
    "seconds": (OwnStep("first_boot", "a.cmd", timeout_seconds=9), "9 is not 10 to 7200"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_refused_with_its_place(name: str) -> None:
    step, message = OPTIONS[name]
    (found,) = option_refusals(EngineOptions(own_steps=(step,)))
    assert found.code == "bad_option"
    assert message in found.reason


def test_steps_of_all_points_are_taken_and_too_many_are_not() -> None:
    steps = (
        OwnStep("offline_before", "own/a.reg"),
        OwnStep("offline_after", "own/a.json"),
        OwnStep("first_boot", "own/a.ps1", required=True, timeout_seconds=7200),
    )
    assert option_refusals(EngineOptions(own_steps=steps)) == []
    (found,) = option_refusals(EngineOptions(own_steps=steps * 11))
    assert "33 steps, needed 30 at most" in found.reason


def test_files_lie_in_the_payload_and_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.reg").write_bytes(b"x")
    (tmp_path / "in/link.reg").symlink_to(tmp_path / "out.reg")
    with (tmp_path / "in/large.reg").open("wb") as file:
        file.truncate(4 * 1024 * 1024 + 1)
    with (tmp_path / "in/huge").open("wb") as file:
        file.truncate(256 * 1024 * 1024 + 1)
    for path, message in (
        ("../out.reg", "needed one inside the payload"),
        ("link.reg", "a link that leads out"),
        ("gone.reg", "Cannot find 'gone.reg'"),
        (".", "is no file"),
        ("large.reg", "found 4194305 bytes, needed 4194304 or less"),
    ):
        with pytest.raises(InputError, match=message):
            read_text(tmp_path / "in", path)
    with pytest.raises(InputError, match="it adds 268435457 bytes"):
        added_files(tmp_path / "in", ["huge"])
    with pytest.raises(InputError, match="no payload is given"):
        read_text(None, "a.reg")


def test_the_program_that_starts_a_script_is_plain_text() -> None:
    step = OwnStep("first_boot", "own/join.cmd")
    name = program_name(1, step)
    assert name == "own01-join"
    assert program(name, step).decode("ascii").split("\r\n") == [
        "@echo off",
        "rem Runs the own step own/join.cmd: 0 is success, 3010 success that a restart completes.",
        '"%SystemRoot%\\System32\\cmd.exe" /d /c ""%~dp0own01-join\\join.cmd""',
        "exit /b %ERRORLEVEL%",
        "",
    ]
    assert program_name(3, OwnStep("first_boot", "own/a.b...cmd")) == "own03-a.b"
    step = OwnStep("first_boot", "tune.PS1")
    text = program(program_name(2, step), step).decode("ascii")
    assert "-NonInteractive -ExecutionPolicy Bypass -File" in text
    assert '-File "%~dp0own02-tune\\tune.PS1"\r\n' in text
