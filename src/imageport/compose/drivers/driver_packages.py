"""Driver packages in the operator's payload folder: found, checked for completeness, bounded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import Refusal
from imageport.compose.drivers.inf import MAX_INF_BYTES, DriverInf, parse_inf
from imageport.compose.payload_files import first_folder, inside, is_plain_name
from imageport.errors import InputError

_MAX_PACKAGES = 100
_MAX_PACKAGE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DriverPackage:
    """One complete package: its INF and the files that it names, relative to ``folder``."""

    name: str
    """The INF's name without its ending, lower-case."""
    folder: Path
    inf_name: str
    inf: DriverInf
    files: tuple[str, ...]
    """With ``/``; holds the INF and the catalogue too."""
    digest: str = ""
    """sha256 over all files' names and contents."""

    def read(self, name: str) -> bytes:
        """Return the content of one of the files."""
        return (self.folder / name).read_bytes()

    @property
    def inf_data(self) -> bytes:
        """Return the INF's content."""
        return self.read(self.inf_name)


def find_packages(
    payload: Path | None, folders: tuple[str, ...], cloud: str
) -> tuple[list[DriverPackage], list[Refusal]]:
    """Return the packages in the named folders (none named: the whole payload) and what is wrong.

    Folders are relative to the payload; what lies below one named like another cloud is that
    cloud's. The order is that of the names, so it is always the same.
    """
    of_others = {name for name in TARGETS if name != cloud}
    named = [name for name in folders or (".",) if first_folder(name) not in of_others]
    if payload is None:
        missing = [
            _refusal("payload_missing", f"Driver folder '{folder}' is named, no payload is given.")
            for folder in named
            if folders
        ]
        return [], missing
    packages: dict[str, DriverPackage] = {}
    refusals: list[Refusal] = []
    for folder in named:
        try:
            paths = [
                path
                for path in _infs(inside(payload, folder))
                if first_folder(str(path.relative_to(payload))) not in of_others
            ]
        except InputError as error:
            refusals.append(_refusal("driver_incomplete", error.message))
            continue
        for path in paths:
            try:
                _take(packages, _package(path))
            except InputError as error:
                refusals.append(_refusal("driver_incomplete", error.message))
    return [packages[name] for name in sorted(packages)], refusals


def _take(packages: dict[str, DriverPackage], package: DriverPackage) -> None:
    """Add a package; the name is its place in the guest, so only one may have it."""
    known = packages.setdefault(package.name, package)
    if known.folder.resolve() != package.folder.resolve():
        raise InputError(
            f"Bad payload: found '{package.inf_name}' in folders '{known.folder.name}' and "
            f"'{package.folder.name}', needed one: name the right folder in the options."
        )


def _infs(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".inf")
    if len(found) > _MAX_PACKAGES:
        raise InputError(f"Bad payload: found {len(found)} INF files, needed {_MAX_PACKAGES}.")
    return found


def _package(path: Path) -> DriverPackage:
    if path.stat().st_size > MAX_INF_BYTES:
        raise InputError(f"Bad driver package '{path.name}': its INF is larger than 4 MiB.")
    try:
        inf = parse_inf(path.read_bytes())
    except InputError as error:
        raise InputError(f"Bad driver package '{path.name}': {error.message}") from error
    names = [path.name, *filter(None, [inf.catalog]), *inf.source_files]
    files = sorted({_spelled(path.parent, name) for name in names}, key=str.lower)
    problems = [name for name in files if not (path.parent / name).is_file()]
    held = {PurePosixPath(name).name.lower() for name in files}
    problems += [name for name in inf.own_binaries if name.lower() not in held]
    if not inf.catalog:
        problems.append("a catalogue (CatalogFile), without which Windows installs no driver")
    if problems:
        raise InputError(f"Bad driver package '{path.name}': missing {', '.join(problems)}.")
    for name in files:
        inside(path.parent, name)
        if not all(is_plain_name(part) for part in PurePosixPath(name).parts):
            raise InputError(f"Bad driver package '{path.name}': file name '{name}' is not plain.")
    total = sum((path.parent / name).stat().st_size for name in files)
    if total > _MAX_PACKAGE_BYTES:
        raise InputError(
            f"Bad driver package '{path.name}': {total} bytes, needed 256 MiB or less."
        )
    digest = _digest(path.parent, files)
    return DriverPackage(path.stem.lower(), path.parent, path.name, inf, tuple(files), digest)


def _digest(folder: Path, files: list[str]) -> str:
    whole = hashlib.sha256()
    for name in files:
        content = hashlib.sha256((folder / name).read_bytes()).digest()
        whole.update(name.lower().encode() + b"\0" + content)
    return whole.hexdigest()


def _spelled(folder: Path, name: str) -> str:
    """Return a relative name as this file system spells it: case matters here, not in Windows."""
    at, parts = folder, []
    for part in PurePosixPath(name).parts:
        known = sorted(at.iterdir()) if at.is_dir() else []
        spelled = next((item.name for item in known if item.name.lower() == part.lower()), part)
        parts.append(spelled)
        at /= spelled
    return "/".join(parts)


def _refusal(code: str, reason: str) -> Refusal:
    hint = "Put the vendor's whole package (INF, CAT, SYS) into the site's payload folder."
    return Refusal(code, reason, hint)
