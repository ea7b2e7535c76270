"""Every change goes through here, so that the report has all of them with the value before."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from imageport.compose.contract import Change
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.volumes.descriptors import Access, describe
from imageport.compose.volumes.guest_files import Addition, GuestFiles

_SENSITIVE = re.compile(
    r"\\Winlogon\\.*DefaultPassword|\\ValidCommunities\\|\\TrapConfiguration\\"
    r"|\\Internet Settings\\.*(Proxy|AutoConfigURL|Connections\\)"
    r"|\\Policy\\Secrets\\|\\Control\\Lsa\\"
    r"|password|passwd|secret|credential|private.?key",
    re.IGNORECASE,
)
"""Where automatic logon, SNMP, proxies and LSA keep what nobody may read in a report."""
_NOT_SENSITIVE = re.compile(r"\\(DisablePasswordChange|MaximumPasswordAge)$", re.IGNORECASE)
"""Switches about passwords, which hold none."""


_NAMED_BY_SECRET = re.compile(
    r"(?<=\\ValidCommunities\\).+|(?<=\\TrapConfiguration\\)[^\\]+", re.IGNORECASE
)
"""SNMP keeps its communities, which are passwords, as names of values and of keys."""


def shown_path(path: str) -> str:
    """Return a registry path as reports show it: names that are secrets only as their digest."""
    return _NAMED_BY_SECRET.sub(lambda match: Value.text(match[0]).digest(), path)


def shown_name(path: str, name: str) -> str:
    """Return the name of a value or key below ``path`` as reports show it."""
    return shown_path(f"{path}\\{name}")[len(shown_path(path)) + 1 :]


def shown(path: str, name: str, value: Value) -> str:
    """Return a value as reports show it; sensitive ones only as their digest."""
    full = f"{path}\\{name}"
    if _SENSITIVE.search(full) and not _NOT_SENSITIVE.search(full):
        return value.digest()
    return value.render()


@dataclass(slots=True)
class Recorder:
    """Changes hives and pending files on behalf of one step after the other."""

    registry: Registry
    files: GuestFiles
    changes: list[Change] = field(default_factory=list)
    step: str = ""
    tier: str = ""

    def begin(self, step: str, tier: str) -> None:
        """Name the step that the next changes belong to."""
        self.step, self.tier = step, tier

    def set_value(self, hive: str, key: str, name: str, value: Value) -> None:
        """Set a registry value; one that is already so is no change."""
        before = self.registry.value(hive, key, name)
        if before == value:
            return
        self.registry.hives[hive].ensure(key).set(name, value)
        path = f"HKLM\\{hive}\\{key}"
        old = shown(path, name, before) if before else ""
        self._note("registry", path, name, old, shown(path, name, value))

    def delete_key(self, hive: str, key: str) -> None:
        """Delete a key and all below; one that is not there is no change."""
        found = self.registry.key(hive, key)
        if found is None:
            return
        path = f"HKLM\\{hive}\\{key}"
        before = "; ".join(_content(found, path)) or "(empty)"
        found.delete()
        self._note("registry", path, "", before, "")

    def delete_value(self, hive: str, key: str, name: str) -> None:
        """Delete a value; one that is not there is no change."""
        before = self.registry.value(hive, key, name)
        found = self.registry.key(hive, key)
        if before is None or found is None:
            return
        found.delete_value(name)
        path = f"HKLM\\{hive}\\{key}"
        self._note("registry", path, name, shown(path, name, before), "")

    def add_folder(self, path: str, access: Access) -> None:
        """Add a folder with its explicit descriptor."""
        self.files.add_folder(path, access)
        self._note("folder", _shown_file(path), "", "", "folder")
        self._note_descriptor(path, access, is_folder=True)

    def add_file(self, path: str, content: bytes, access: Access) -> None:
        """Add a file with its explicit descriptor."""
        self.files.add_file(path, content, access)
        self._note("file", _shown_file(path), "", "", Addition(path, content, access).digest())
        self._note_descriptor(path, access, is_folder=False)

    def _note_descriptor(self, path: str, access: Access, *, is_folder: bool) -> None:
        text = describe(access.descriptor(is_folder=is_folder))
        self._note("descriptor", _shown_file(path), "", "", text)

    def _note(self, kind: str, path: str, name: str, before: str, after: str) -> None:
        where = shown_path(path), shown_name(path, name) if name else ""
        self.changes.append(Change(self.step, self.tier, kind, *where, before, after))


def _shown_file(path: str) -> str:
    return "\\" + path.replace("/", "\\")


def _content(key: Key, path: str) -> list[str]:
    values = key.values().items()
    own = [f"{shown_name(path, n) or '@'}={shown(path, n, value)}" for n, value in values]
    for child in key.children():
        name = shown_name(path, child.name)
        own += [f"{name}\\{line}" for line in _content(child, f"{path}\\{child.name}")]
    return own
