"""Installers as an operator supplies them: look-alikes that carry what they leave behind.

An EXE is a program with an archive behind it, as self-extracting installers are; an MSI is a
compound file whose one stream is that archive. The archive holds ``install.txt`` (which argument
makes it silent, with which code it ends, what it writes to the registry) and the files. Nothing in
it runs: an emulated first boot reads it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from imageport.sandbox.sample.portable_executable import minimal_pe
from imageport.sandbox.sample.vm_agent_package import compound_file

MAKER = "Citrix Systems, Inc."
STREAM = "SampleInstaller"
SCRIPT = "install.txt"
FILE_NAMES = {
    "pvs_target": "PVS_Device_x64.exe",
    "vda": "VDAServerSetup.exe",
    "machine_identity": "MachineIdentityAgent.msi",
    "mcs_io": "McsIoDriver.msi",
}
"""By software, as contract names it."""
_HERE = Path(__file__).parent / "installers"
_FIXED_TIME = (2024, 1, 1, 0, 0, 0)


def write_installer(
    folder: Path, software: str, version: str, *, exit_code: int = 0, company: str = MAKER
) -> Path:
    """Write an installer into the folder, made if missing, and return its path.

    Args:
        folder: of the payload.
        software: a key of `FILE_NAMES`.
        version: four numbers with dots; what it installs has it, and so do the files.
        exit_code: what it ends with once it has installed.
        company: who made the files.

    The same bytes at every call: the payload is pinned by its digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAMES[software]
    archive = _archive((_HERE / f"{software}.txt").read_text("utf-8"), version, exit_code, company)
    if path.suffix == ".msi":
        path.write_bytes(compound_file(STREAM, archive))
    else:
        path.write_bytes(minimal_pe(path.name, version, company=company) + archive)
    return path


def sha256_of(path: Path) -> str:
    """Return a file's digest, as the option ``sha256`` wants it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _archive(table: str, version: str, exit_code: int, company: str) -> bytes:
    script, paths = [f"exit {exit_code}"], []
    for line in table.splitlines():
        if line.startswith("file "):
            paths.append(line.removeprefix("file ").replace("\\", "/"))
        elif not line.startswith("#"):
            script.append(line.replace("{version}", version))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, SCRIPT, "\n".join(script).encode("ascii"))
        for path in paths:
            name = path.rpartition("/")[2]
            _add(archive, f"files/{path}", minimal_pe(name, version, company=company))
    return data.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _FIXED_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
