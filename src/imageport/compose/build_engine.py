"""Building the engine: one zipapp, the same bytes from the same sources, with its own identity.

Host side only; it does not travel in the engine.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SHEBANG = b"#!/usr/bin/python3\n"
HOST_SIDE = {"build_engine.py", "local_files.py", "site_engine.py", "report_page.py"}
_OUTSIDE_COMPOSE = ("__init__.py", "errors.py")
_KINDS = ("*.py", "*.cmd", "*.ps1")
"""Modules, and the texts that the engine puts into a guest."""
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold; any fixed one would do."""
_FILE_MODE = 0o100644 << 16
_MAIN = b"""import sys

from imageport.compose.engine_main import main

sys.exit(main())
"""
_ID_FILE = "imageport/compose/engine_id.txt"


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A built engine; ``engine_id`` names its sources, ``sha256`` the file's bytes."""

    path: Path
    sha256: str
    engine_id: str


def engine_sources() -> dict[str, bytes]:
    """Return the engine's modules and texts by their name in the archive, sorted."""
    files = [PACKAGE / name for name in _OUTSIDE_COMPOSE]
    compose = PACKAGE / "compose"
    found = [path for kind in _KINDS for path in compose.rglob(kind)]
    files += [path for path in found if path.name not in HOST_SIDE]
    return {
        str(Path("imageport") / path.relative_to(PACKAGE)): path.read_bytes()
        for path in sorted(files)
    }


def engine_id() -> str:
    """Return the identity of the engine's sources: sha256 over their names and contents."""
    digest = hashlib.sha256()
    for name, data in engine_sources().items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()


def build_engine(path: Path) -> BuiltEngine:
    """Write the engine to ``path`` (whole or not at all) and return what it is."""
    identity = engine_id()
    members = {"__main__.py": _MAIN, **engine_sources(), _ID_FILE: identity.encode()}
    archive = io.BytesIO(SHEBANG)
    archive.seek(0, io.SEEK_END)
    # Stored, not deflated: zlib versions differ in what they make of the same bytes.
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as target:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.external_attr = _FILE_MODE
            entry.create_system = 3
            target.writestr(entry, members[name])
    data = archive.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(data)
    partial.chmod(0o755)
    partial.replace(path)
    return BuiltEngine(path, hashlib.sha256(data).hexdigest(), identity)
