r"""What an installer of the sample leaves behind when first boot runs it, and its exit code.

Played from what the installer carries (``install.txt`` and files in an archive), never from a
table of ours: what is not in it does not appear. A real installer is a program; these are not.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.registry import Hive, Value
from imageport.sandbox.guest_player.vm_agent import PackageError, streams
from imageport.sandbox.guest_player.volume import WindowsVolume

NO_FILE, NO_PROGRAM = "1619", "193"
"""ERROR_INSTALL_PACKAGE_OPEN_FAILED, ERROR_BAD_EXE_FORMAT (winerror.h)."""
BROKEN = "1620"
"""ERROR_INSTALL_PACKAGE_INVALID."""
WAITS = "timeout"
"""It asks somebody, and nobody is there: no code comes before the step's time is over."""
_STREAM = "SampleInstaller"
_UNREADABLE = (struct.error, IndexError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
_VALUE = re.compile(r"([^=]+)=(dword|text|expand|add):(.*)")
_PROGRAM = re.compile(r'"%~dp0([^"%]+\.(?:exe|msi))"([^\r\n]*)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where programs run: the volume, two hives and the control set that was booted."""

    volume: WindowsVolume
    system: Hive
    software: Hive
    control_set: str


@dataclass(frozen=True, slots=True)
class _Setup:
    silent: str
    exit_code: str
    keys: dict[str, list[str]]
    files: dict[str, bytes]


def program_of(command_file: bytes) -> tuple[str, str] | None:
    r"""Return what a ``NAME.cmd`` runs: a path below its own folder, and the arguments.

    For an MSI the arguments hold those of msiexec. None when it runs no installer.
    """
    match = _PROGRAM.search(command_file.decode("ascii", "replace"))
    if match is None:
        return None
    return match[1], match[2].replace("%%", "%").strip()


def run_installer(machine: Machine, path: str, arguments: str) -> str:
    """Install what the file at ``path`` carries and return the exit code."""
    data = machine.volume.read(path)
    if data is None:
        return NO_FILE
    try:
        setup = _setup(data)
    except PackageError as error:
        return error.code
    if setup.silent.lower() not in arguments.lower().split(" "):
        return WAITS
    for name, content in setup.files.items():
        machine.volume.write(name.replace("/", "\\"), content)
    for key, lines in setup.keys.items():
        hive, _, below = key.partition("\\")
        target = machine.system if hive == "SYSTEM" else machine.software
        place = f"{machine.control_set}\\{below}" if hive == "SYSTEM" else below
        target.set(place, dict(_value(target, place, line) for line in lines))
    return setup.exit_code


def _setup(data: bytes) -> _Setup:
    try:
        if data[:2] != b"MZ":
            data = streams(data).get(_STREAM, b"")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        lines = members.pop("install.txt").decode("ascii").splitlines()
    except PackageError:
        raise
    except _UNREADABLE as error:
        code = NO_PROGRAM if data[:2] == b"MZ" else BROKEN
        raise PackageError(code, f"no installer of the sample: {error}") from error
    facts: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    inside = ""
    for line in filter(None, lines):
        if line.startswith("["):
            inside = line[1:-1]
        elif inside:
            keys.setdefault(inside, []).append(line)
        else:
            name, _, value = line.partition(" ")
            facts[name] = value
    files = {name.removeprefix("files/"): content for name, content in members.items()}
    return _Setup(facts.get("silent", ""), facts.get("exit", "0"), keys, files)


def _value(hive: Hive, key: str, line: str) -> tuple[str, Value]:
    match = _VALUE.fullmatch(line)
    if match is None:
        raise PackageError(BROKEN, f"no value: {line}")
    name, kind, text = match.groups()
    if kind == "dword":
        return name, registry.number(int(text))
    if kind == "add":
        there = registry.texts(hive.key(key), name)
        return name, registry.strings(*there, *(() if text in there else (text,)))
    return name, registry.string(text, registry.EXPAND_SZ if kind == "expand" else registry.SZ)
