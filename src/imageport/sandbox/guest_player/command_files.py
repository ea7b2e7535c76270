r"""What a program of first boot's, ``programs\NAME.cmd``, comes to: its code, and what it leaves.

Its text is looked through for the few forms such files have; cmd.exe is not played. An installer
of the sample is carried out (`installers`), anything else only said in the log.
"""

from __future__ import annotations

import re

from imageport.sandbox.guest_player.installers import Machine, program_of, run_installer
from imageport.sandbox.guest_player.volume import WindowsVolume

NO_PROGRAM = "9009"
"""What cmd.exe answers to a name that is no program (MSG_DIR_BAD_COMMAND_OR_FILE)."""
NO_SCRIPT = "1"
_QUOTED = re.compile(r'"(?:\w+=)?([^"=\r\n]+\.(?:exe|msi|cmd|bat|ps1|vbs))"', re.IGNORECASE)
"""A file that a line runs or hands on, or that it gives a name to."""
_SETTING = re.compile(r'^set "(\w+)=([^"]*)"\r$', re.MULTILINE)
_BY_CODE = re.compile(r'^if "%CODE%"=="(\d+)" (?:exit /b (\d+)|goto (\w+))\r$', re.MULTILINE)
_FOLDERS = {
    "%systemroot%": "Windows",
    "%windir%": "Windows",
    "%programfiles%": "Program Files",
    "%programdata%": "ProgramData",
}


def run_command_file(machine: Machine, folder: str, name: str) -> tuple[str, str]:
    """Return the exit code ("timeout" where it waits for somebody), and a word for the log.

    Args:
        machine: what it works on.
        folder: the Windows path that the file lies in.
        name: its name without ``.cmd``.
    """
    content = machine.volume.read(f"{folder}\\{name}.cmd")
    if content is None:
        return NO_SCRIPT, f"no file {name}.cmd"
    if content.count(b"\n") != content.count(b"\r\n"):
        return NO_SCRIPT, f"{name}.cmd has lines without CR, in which cmd.exe loses its labels"
    text = content.decode("ascii", "replace")
    missing = _missing(machine.volume, folder, text)
    if missing:
        return NO_PROGRAM, f"no program {missing}"
    marker = _marker(folder, text)
    if marker and machine.volume.exists(marker):
        return "0", "done already"
    installer = program_of(content)
    if installer is None:
        return "0", "not played"
    path, arguments = installer
    code = run_installer(machine, f"{folder}\\{path}", arguments)
    answer, is_done = _answer(text, code)
    if marker and is_done:
        machine.volume.write(marker, b"done\r\n")
    return answer, f"{path} ended with {code}"


def _missing(volume: WindowsVolume, folder: str, text: str) -> str:
    """Return the first file of the folder that is named and not there, or what no program is."""
    settings = {f"%{name.lower()}%": value for name, value in _SETTING.findall(text)}
    paths = [_expanded(quoted, folder, settings) for quoted in _QUOTED.findall(text)]
    for path in paths:
        if path.startswith(folder) and not volume.exists(path):
            return path
    if paths and not any(volume.exists(path) for path in paths):
        return paths[0]
    return ""


def _expanded(path: str, folder: str, settings: dict[str, str]) -> str:
    """Return a path below the drive, its variables replaced."""
    for _ in range(3):  # a setting may name a variable of Windows'
        match = re.match(r"%\w+%", path)
        if match is None:
            break
        name = match[0].lower()
        path = {**_FOLDERS, **settings}.get(name, "") + path[match.end() :]
    if path.lower().startswith("%~dp0"):
        return f"{folder}\\{path[5:]}"
    return re.sub(r"^[A-Za-z]:\\", "", path)


def _marker(folder: str, text: str) -> str:
    """Return the file by which a program that is run again sees that it is done, "" for none."""
    match = re.search(r'^set "DONE=%~dp0([^"%]+)"\r$', text, re.MULTILINE)
    return f"{folder}\\{match[1]}" if match else ""


def _answer(text: str, code: str) -> tuple[str, bool]:
    """Return what the file makes of its installer's code, and whether it notes that it is done."""
    for found, answer, label in _BY_CODE.findall(text):
        if found != code:
            continue
        if answer:
            return answer, False
        part = text.partition(f"\n:{label}\r\n")[2]
        ends = re.search(r"^exit /b (\d+)\r$", part, re.MULTILINE)
        return (ends[1], '>"%DONE%"' in part[: ends.start()]) if ends else (code, False)
    return code, code == "0"
