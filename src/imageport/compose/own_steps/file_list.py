# References: Microsoft, Naming Files, Paths, and Namespaces.
"""Lists of files that an operator adds to the Windows volume, or takes away from it, as JSON.

``{"add": [{"path": …, "from": …, "access": …}], "remove": [{"path": …}]}``; ``path`` is from the
volume's root, ``from`` from the payload's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.hives.registry import CONFIG
from imageport.compose.volumes.descriptors import Access
from imageport.errors import InputError

_MAX_ENTRIES = 1000
_MAX_PATH = 240
"""Below MAX_PATH, so that every program of the guest can open it."""
_PROTECTED = (FOLDER.lower(), CONFIG.lower())
"""Our own folder and the hives: nothing in them, and no folder above them goes."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\.|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*]')
_SHORT_NAME = re.compile(r"~\d")
"""Another name of a file whose real name would be protected."""


@dataclass(frozen=True, slots=True)
class FileAddition:
    """A file to add, or to put new content into where it is."""

    path: str
    source: str
    access: Access


@dataclass(frozen=True, slots=True)
class FileList:
    """What is removed, then what is added."""

    removals: tuple[str, ...]
    additions: tuple[FileAddition, ...]


def parse_file_list(data: bytes) -> FileList:
    """Read a list.

    Raises:
        InputError: all that is wrong with it, each with its place.
    """
    document = _document(data)
    problems = [f"unknown key '{key[:40]}'" for key in sorted(set(document) - {"add", "remove"})]
    removals = _entries(document, "remove", ("path",), problems)
    additions = _entries(document, "add", ("path", "from", "access"), problems)
    for place, entry in (*removals, *additions):
        is_removal = place.startswith("remove")
        problem = _path_problem(entry["path"], is_removal=is_removal)
        problems += [f"{place}.path: {problem}"] if problem else []
        if not is_removal and entry["access"] not in set(Access):
            problems.append(f"{place}.access: needed {' or '.join(Access)}")
    if not removals and not additions and not problems:
        problems.append("it adds and removes nothing")
    if problems:
        raise InputError("; ".join(problems) + ".")
    return FileList(
        tuple(_from_root(entry["path"]) for _, entry in removals),
        tuple(
            FileAddition(_from_root(entry["path"]), entry["from"], Access(entry["access"]))
            for _, entry in additions
        ),
    )


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise InputError(f"line 1: found no UTF-8 ({error.reason}).") from error
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}: found no JSON: {error.msg}.") from error
    except RecursionError as error:
        raise InputError("line 1: found lists within lists without end.") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError("line 1: found a number of too many digits.") from error
    if not isinstance(document, dict):
        raise InputError('line 1: needed an object with "add" or "remove".')
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InputError("a key stands twice in one object.")
    return found


def _entries(
    document: dict[str, Any], key: str, fields: tuple[str, ...], problems: list[str]
) -> list[tuple[str, dict[str, str]]]:
    """Return the entries that have the right form, with their places; note the others."""
    entries = document.get(key, [])
    if not isinstance(entries, list) or len(entries) > _MAX_ENTRIES:
        problems.append(f"{key}: needed a list of {_MAX_ENTRIES} entries at most")
        return []
    sound = []
    for at, entry in enumerate(entries):
        place = f"{key}[{at}]"
        if not isinstance(entry, dict) or set(entry) != set(fields):
            problems.append(f"{place}: needed an object with the keys {', '.join(fields)}")
        elif not all(isinstance(value, str) for value in entry.values()):
            problems.append(f"{place}: needed texts")
        else:
            sound.append((place, entry))
    return sound


def _from_root(path: str) -> str:
    return path.replace("\\", "/").removeprefix("/")


def _path_problem(path: str, *, is_removal: bool) -> str:
    text = _from_root(path)
    parts = text.split("/")
    if not text or len(text) > _MAX_PATH or any(part in {"", ".", ".."} for part in parts):
        return f"needed a path from the volume's root, of {_MAX_PATH} characters at most"
    if any(_FORBIDDEN.search(part) or _RESERVED.match(part) for part in parts):
        return "holds a name that Windows does not allow, or a drive"
    if any(part.endswith((".", " ")) or _SHORT_NAME.search(part) for part in parts):
        return "holds a name that ends with a dot or a space, or a short name (~1)"
    for place in _PROTECTED:
        if f"{text.lower()}/".startswith(f"{place}/"):
            return "lies among the registry's hives or in first boot's own folder"
        if is_removal and place.startswith(f"{text.lower()}/"):
            return "holds the registry's hives or first boot's own folder"
    return ""
