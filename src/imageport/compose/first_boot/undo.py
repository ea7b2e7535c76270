"""What a composed image holds for its one boot, kept so that it can be composed once more.

``undo.json`` in the first-boot folder: the values that were changed for that boot only, each as it
was before. An image that was composed and never booted gets them back before the next composing,
which then finds what the first one found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from imageport.compose.first_boot.plan import CLOSING_VERBS, FOLDER, Held, read_plan
from imageport.compose.first_boot.result import FirstBootResult, read_first_boot
from imageport.compose.hives.registry import BOOT_STORE_HIVE, EDITED_HIVES
from imageport.compose.hives.registry_value import Value
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import ImageportError, InputError

UNDO_FILE = f"{FOLDER}/undo.json"
_SCHEMA = 1
_MAX_BYTES = 256 * 1024
_MAX_VALUES = 500
"""A plan has 99 steps, and images have two or three control sets."""
_HIVES = {*EDITED_HIVES, BOOT_STORE_HIVE}
_MAX_KIND = 0xFFFFFFFF
"""A value's type has 32 bits in a hive."""


class EarlierBoot(StrEnum):
    """What the first-boot folder of an image tells about an earlier composing."""

    NONE = "none"
    COMPOSED = "composed"
    """Composed and never booted: what it holds can be put back exactly."""
    FINISHED = "finished"
    """Booted to the end, which says that it put back what was held."""
    UNKNOWN = "unknown"
    """A boot that broke off or could not put back what was held, or somebody else's folder."""


def render_undo(held: Sequence[Held]) -> bytes:
    """Return undo.json."""
    values = [
        {
            "hive": item.hive,
            "key": item.key,
            "name": item.name,
            "before": _rendered(item.before),
        }
        for item in held
    ]
    document = {"schema": _SCHEMA, "held": values}
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"


def parse_undo(data: bytes) -> tuple[Held, ...]:
    """Read undo.json.

    Raises:
        InputError: it is none.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
            raise ValueError(f"no schema {_SCHEMA}")
        values = document["held"]
        if not isinstance(values, list) or len(values) > _MAX_VALUES:
            raise ValueError(f"no list of at most {_MAX_VALUES} values")
        return tuple(_held(value) for value in values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"Bad undo file: found {error}, needed what composing wrote.") from error


def read_undo(files: GuestFiles) -> tuple[Held, ...]:
    """Read the guest's undo.json; `InputError` when it is none, or larger than any of ours."""
    size = files.size_bytes(UNDO_FILE)
    if size > _MAX_BYTES:
        raise InputError(f"Bad undo file: found {size} bytes, needed {_MAX_BYTES} or less.")
    return parse_undo(files.read(UNDO_FILE, _MAX_BYTES))


def earlier_boot(files: GuestFiles) -> EarlierBoot:
    """Say what came of an earlier composing of this image."""
    if not files.exists(FOLDER):
        return EarlierBoot.NONE
    if not files.is_folder(FOLDER):
        return EarlierBoot.UNKNOWN
    result = read_first_boot(files)
    if result.state == "done" or (result.state == "failed" and _is_put_back(files, result)):
        return EarlierBoot.FINISHED
    if result.state == "not-run" and _has_undo(files):
        return EarlierBoot.COMPOSED
    return EarlierBoot.UNKNOWN


def _has_undo(files: GuestFiles) -> bool:
    if not files.exists(UNDO_FILE):
        return False
    try:
        read_undo(files)
    except InputError:
        return False
    return True


def _is_put_back(files: GuestFiles, result: FirstBootResult) -> bool:
    """Say whether a boot that failed did all that ends one; without its plan nobody knows."""
    try:
        steps = read_plan(files).steps
    except ImageportError:
        return False
    closing = [step for step in steps if step.verb in CLOSING_VERBS]
    return all(result.steps.get(f"{step.number:02d}") == "ok" for step in closing)


def _rendered(value: Value | None) -> dict[str, Any] | None:
    return None if value is None else {"kind": value.kind, "data": value.data.hex()}


def _held(value: Any) -> Held:
    hive, key, name = (value[field] for field in ("hive", "key", "name"))
    if hive not in _HIVES or not isinstance(key, str) or not isinstance(name, str) or not key:
        raise ValueError(f"value '{name!s:.40}' of hive '{hive!s:.20}'")
    before = value["before"]
    if before is None:
        return Held(hive, key, name, None)
    kind, data = before["kind"], before["data"]
    if not isinstance(kind, int) or not 0 <= kind <= _MAX_KIND or not isinstance(data, str):
        raise ValueError(f"no content of value '{name:.40}'")
    return Held(hive, key, name, Value(kind, bytes.fromhex(data)))
