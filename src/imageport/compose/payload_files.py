# References: [MS-CFB] 2.2 Compound File Header (an MSI is a compound file).
"""Files of the operator's payload: found without leaving it, told by name and first bytes."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from imageport.errors import InputError

MSI_SIGNATURE = bytes.fromhex("d0cf11e0a1b11ae1")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.()+\-]{1,100}")
"""Names that need no quoting rule of cmd.exe to be understood; anything else is refused."""


def first_folder(name: str) -> str:
    """Return the uppermost folder of a path in the payload, in lower case."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return parts[0].lower() if parts else ""


def is_plain_name(name: str) -> bool:
    """Say whether a file's name needs no quoting rule of cmd.exe to be understood."""
    return _SAFE_NAME.fullmatch(name) is not None


def inside(payload: Path, name: str) -> Path:
    """Return a path of the payload.

    Raises:
        InputError: it leaves the payload, by ``..`` or a link, or is not there.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    place = payload / relative
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"Bad payload path: found '{name}', needed one inside the payload.")
    if not place.resolve().is_relative_to(payload.resolve()):
        raise InputError(f"Bad payload path: found '{name}', a link that leads out of the payload.")
    if not place.exists():
        raise InputError(f"Cannot find '{name}' in the payload.")
    return place
