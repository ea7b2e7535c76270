# References: [MS-CFB] 2.2 Compound File Header (an MSI is a compound file); PE format, MS-DOS stub.
"""Installers in the operator's payload: their options checked, their files told and pinned."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from imageport.compose.contract import EngineOptions, Inspection, Installer, Refusal, Software
from imageport.compose.payload_files import MSI_SIGNATURE, inside, is_plain_name
from imageport.compose.refusals import refusal
from imageport.errors import InputError

_MAX_BYTES = 4 * 1024**3
"""Whole VDA installers are about 1 GB."""
_MAX_INSTALLERS = 20
"""The plan of first boot has 99 steps for everything."""
_MAX_SECONDS = 7200
"""As much as the longest deadline of first boot."""
_MAX_ARGUMENT_CHARACTERS = 4000
"""A line of cmd.exe has 8191 characters, and a percent sign takes two."""
_FIRST_YEAR = 1000
"""Citrix counts by year and month (2402) or by a number that runs on (7.41), and the files of a
product may say the one where the product says the other: only like is compared with like."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,58}[A-Za-z0-9_-])?")
"""A folder of first boot gets it: Windows drops a dot at the end."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}")
_CODE = re.compile(r"-?[1-9]\d{0,9}")
_OPERATORS = set("&|<>^()")
"""What cmd.exe acts on outside of quotes."""


@dataclass(frozen=True, slots=True)
class InstallerPackage:
    """An installer that was found, and is the one that the operator means."""

    installer: Installer
    path: Path
    is_msi: bool


def installed_version(inspection: Inspection, software: str) -> str:
    """Return the version of a piece of software in the guest, "" when it is not known to be there.

    ``other`` software has no name that Windows would list it by.
    """
    versions: dict[str, str] = {
        Software.PVS_TARGET: inspection.pvs_target_version,
        Software.VDA: inspection.vda_version,
        Software.MACHINE_IDENTITY: inspection.machine_identity_version,
        Software.MCS_IO: inspection.mcs_io_version,
    }
    return versions.get(software, "")


def is_at_least(found: str, wanted: str) -> bool:
    """Say whether a version is the wanted one or newer, as far as the wanted one goes.

    ``2402.0.100.78`` is at least ``2402`` and ``2402.0.100``, not ``2402.0.200``; ``2402`` is
    ``2402.0``. Of what a product says after its version nothing counts.
    """
    match = _VERSION.match(found)
    if not _VERSION.fullmatch(wanted) or match is None:
        return False
    depth = len(wanted.split("."))
    return _numbers(match[0])[:depth] >= _numbers(wanted)[:depth]


def is_comparable(one: str, other: str) -> bool:
    """Say whether two versions are counted in the same way."""
    versions = [_VERSION.match(version) for version in (one, other)]
    is_year = [_numbers(version[0])[0] >= _FIRST_YEAR for version in versions if version]
    return len(is_year) == len(versions) and is_year[0] is is_year[1]


def is_needed(inspection: Inspection, installer: Installer) -> bool:
    """Say whether first boot has to run it: what is there is missing, unknown or older."""
    return not is_at_least(installed_version(inspection, installer.software), installer.version)


def brings(options: EngineOptions, software: Software) -> Installer | None:
    """Return the installer that the options name for a piece of software."""
    return next((item for item in options.installers if item.software == software), None)


def installer_problems(options: EngineOptions) -> list[str]:
    """Return everything wrong with the option ``installers``; arguments are never repeated."""
    found = []
    if len(options.installers) > _MAX_INSTALLERS:
        found.append(f"installers: {len(options.installers)} are more than {_MAX_INSTALLERS}")
    for what, values in (
        ("name", [item.name.lower() for item in options.installers]),
        ("software", [i.software for i in options.installers if i.software != Software.OTHER]),
    ):
        twice = sorted(value for value, count in Counter(values).items() if count > 1)
        found += [f"installers: {what} '{value}' is there twice" for value in twice]
    for number, installer in enumerate(options.installers):
        found += [f"installers[{number}].{problem}" for problem in _problems(installer)]
    if options.provisioning == "mcs" and brings(options, Software.PVS_TARGET):
        found.append(f"installers: software '{Software.PVS_TARGET}' is for pvs, not mcs")
    return found


def argument_problems(where: str, arguments: tuple[str, ...]) -> list[str]:
    """Return everything wrong with the arguments of one program; they are never repeated."""
    found = []
    for number, argument in enumerate(arguments):
        problem = argument_problem(argument)
        if problem:
            found.append(f"{where}[{number}]: {problem}")
    if sum(map(len, arguments)) > _MAX_ARGUMENT_CHARACTERS:
        found.append(f"{where}: are longer than {_MAX_ARGUMENT_CHARACTERS} characters")
    return found


def argument_problem(text: str) -> str:
    """Return why cmd.exe would not hand an argument over as it is, "" when it does."""
    if not text.isascii() or not text.isprintable():
        return "holds what is no printable ASCII character"
    if text.count('"') % 2:
        return "has a quote that is not closed"
    outside = "".join(text.split('"')[::2])
    operators = sorted(_OPERATORS & set(outside))
    return f"holds {' '.join(operators)} outside of quotes" if operators else ""


def find_installers(
    payload: Path | None, options: EngineOptions
) -> tuple[list[InstallerPackage], list[Refusal]]:
    """Return the installers that the options name, and what is wrong with their files."""
    packages, refusals = [], []
    for installer in options.installers:
        try:
            packages.append(_package(payload, installer))
        except InputError as error:
            refusals.append(refusal("installer", error.message))
    return packages, refusals


def _problems(installer: Installer) -> list[str]:
    found = []
    if installer.software not in set(Software):
        found.append(f"software: '{installer.software}' is not {', '.join(Software)}")
    if not _NAME.fullmatch(installer.name):
        found.append(f"name: '{installer.name}' is no plain name")
    if not _VERSION.fullmatch(installer.version):
        found.append(f"version: '{installer.version}' is not one to four numbers with dots")
    if not _SHA256.fullmatch(installer.sha256):
        found.append(f"sha256: '{installer.sha256}' is not 64 hexadecimal digits")
    if not 1 <= installer.timeout_seconds <= _MAX_SECONDS:
        found.append(
            f"timeout_seconds: {installer.timeout_seconds} is not within 1 to {_MAX_SECONDS}"
        )
    bad = [code for code in installer.restart_codes if not _CODE.fullmatch(code)]
    found += [f"restart_codes: '{code}' is no exit code other than 0" for code in bad]
    return found + argument_problems("arguments", installer.arguments)


def _numbers(version: str) -> list[int]:
    """Return the four numbers of a version; those that it does not say are 0."""
    numbers = [int(number) for number in version.split(".")]
    return numbers + [0] * (4 - len(numbers))


def _package(payload: Path | None, installer: Installer) -> InstallerPackage:
    if payload is None:
        raise InputError(f"Cannot find installer '{installer.path}': no payload is given.")
    path = inside(payload, installer.path)
    if not path.is_file() or not is_plain_name(path.name):
        raise InputError(f"Bad installer '{installer.path}': needed a file with a plain name.")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(f"Bad installer '{path.name}': {size} bytes, needed 4 GiB or less.")
    with path.open("rb") as file:
        head = file.read(len(MSI_SIGNATURE))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != installer.sha256.lower():
        raise InputError(
            f"Bad installer '{path.name}': found sha256 {digest}, needed {installer.sha256}."
        )
    is_msi = head == MSI_SIGNATURE
    if not is_msi and not head.startswith(b"MZ"):
        raise InputError(
            f"Bad installer '{path.name}': found {head.hex() or 'nothing'} at offset 0, needed "
            "an MSI's or a program's first bytes."
        )
    ending = ".msi" if is_msi else ".exe"
    if path.suffix.lower() != ending:
        raise InputError(f"Bad installer '{path.name}': by its content needed a name in {ending}.")
    return InstallerPackage(installer, path, is_msi)
