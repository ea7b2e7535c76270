"""Every change goes through here, so that the report has all of them with the value before."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from imageport.compose.contract import Change
from imageport.compose.guest_paths import shown_file
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import BOOT_STORE_HIVE, UEFI, Registry
from imageport.compose.hives.registry_value import Value, printable
from imageport.compose.volumes.descriptors import Access, describe
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

_MAX_BEFORE_CHARACTERS = 20_000
"""A deleted key's content is cut here in the report: installer records reach megabytes."""
_MAX_DIGEST_BYTES = 64 * 1024 * 1024
"""Of what goes: drivers and settings are smaller, a write cache or hiberfil.sys fills a disk."""
_SENSITIVE = re.compile(
    r"\\Winlogon\\.*DefaultPassword|\\ValidCommunities\\|\\TrapConfiguration\\"
    r"|\\Internet Settings\\.*(Proxy|AutoConfigURL|Connections\\)"
    r"|\\Policy\\Secrets\\|\\Control\\Lsa\\"
    r"|password|passwd|passphrase|pwd|secret|credential|connection.?string"
    r"|(?:private|shared|access).?key|(?:token|api.?key|psk|psw)$",
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
    """Changes hives and pending files on behalf of one step after the other.

    What is already as wanted is no change. Paths of ``boot_files`` are shown below ``boot:``.
    ``firmware`` is what will start the disk.
    """

    registry: Registry
    files: GuestFiles
    boot_files: GuestFiles | None = None
    changes: list[Change] = field(default_factory=list)
    step: str = ""
    tier: str = ""
    firmware: str = UEFI

    def begin(self, step: str, tier: str) -> None:
        """Name the step that the next changes belong to."""
        self.step, self.tier = step, tier

    def set_value(self, hive: str, key: str, name: str, value: Value) -> None:
        """Set a registry value."""
        before = self.registry.value(hive, key, name)
        if before == value:
            return
        self.registry.hives[hive].ensure(key).set(name, value)
        path = key_path(hive, key)
        old = shown(path, name, before) if before else ""
        self._note("registry", path, name, old, shown(path, name, value))

    def add_key(self, hive: str, key: str) -> None:
        """Make a key that needs no value."""
        if self.registry.key(hive, key) is None:
            self.registry.hives[hive].ensure(key)
            self._note("registry", key_path(hive, key), "", "", "(empty)")

    def delete_key(self, hive: str, key: str) -> None:
        """Delete a key and all below."""
        found = self.registry.key(hive, key)
        if found is None:
            return
        path = key_path(hive, key)
        before = _bounded("; ".join(_content(found, path))) or "(empty)"
        found.delete()
        self._note("registry", path, "", before, "")

    def delete_value(self, hive: str, key: str, name: str) -> None:
        """Delete a value."""
        before = self.registry.value(hive, key, name)
        found = self.registry.key(hive, key)
        if before is None or found is None:
            return
        found.delete_value(name)
        path = key_path(hive, key)
        self._note("registry", path, name, shown(path, name, before), "")

    def add_folder(self, path: str, access: Access) -> None:
        """Add a folder with its explicit descriptor; its parent exists."""
        self.files.add_folder(path, access)
        self._note("folder", shown_file(path), "", "", "folder")
        self._note_descriptor(path, access, is_folder=True)

    def ensure_folder(self, path: str, access: Access) -> None:
        """Add a folder, and the folders above it, where they are missing."""
        if self.files.is_folder(path):
            return
        parent = path.rpartition("/")[0]
        if parent:
            self.ensure_folder(parent, access)
        self.add_folder(path, access)

    def add_file(self, path: str, content: bytes | Path, access: Access) -> None:
        """Add a file with its explicit descriptor."""
        self.files.add_file(path, content, access)
        self._note("file", shown_file(path), "", "", content_digest(content))
        self._note_descriptor(path, access, is_folder=False)

    def replace_file(self, path: str, content: bytes | Path) -> None:
        """Put new content into a file that is there, in place: its descriptor stays."""
        size = self.files.size_bytes(path)
        is_as_long = size == (
            len(content) if isinstance(content, bytes) else content.stat().st_size
        )
        # A file of another size differs without being read whole.
        before = _digest(self.files, path) if is_as_long else _told(self.files, path, size)
        after = content_digest(content)
        if before == after:
            return
        self.files.rewrite(path, content)
        self._note("file", shown_file(path), "", before, after)

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all below it; what is not there is no change."""
        if not self.files.exists(path):
            return
        if self.files.is_folder(path):
            sizes = [self.files.size_bytes(inner) for inner in self.files.below(path)]
            kind, before = "folder", f"folder of {len(sizes)} files, {sum(sizes)} bytes"
        else:
            kind, before = "file", _told(self.files, path, self.files.size_bytes(path))
        self.files.remove(path)
        self._note(kind, shown_file(path), "", before, "")

    def add_boot_file(self, path: str, content: bytes | Path) -> None:
        """Add a file to the volume that firmware starts from, and the folders it needs."""
        files = self._boot()
        folder = path.rpartition("/")[0]
        parts = folder.split("/") if folder else []
        for depth in range(1, len(parts) + 1):
            place = "/".join(parts[:depth])
            if not files.is_folder(place):
                files.add_folder(place, Access.USERS_READ)
                self._note("folder", _shown_boot_file(place), "", "", "folder")
        files.add_file(path, content, Access.USERS_READ)
        self._note("file", _shown_boot_file(path), "", "", content_digest(content))

    def note_replays(self) -> None:
        """Note the hives that were brought up to date when they were opened."""
        for name, copy in self.registry.replayed.items():
            shown_as = (_shown_boot_file if name == BOOT_STORE_HIVE else shown_file)(copy.place)
            before = f"sequence {copy.header.sequences}"
            self._note("file", shown_as, "", before, f"{copy.replay}; {content_digest(copy.path)}")

    def note_disk(self, what: str, before: str, after: str) -> None:
        """Note a change of the disk itself: its partition table, a volume's size."""
        self._note("disk", what, "", before, after)

    def _boot(self) -> GuestFiles:
        if self.boot_files is None:
            raise EngineFailed("Cannot change the boot volume: there is none to read.")
        return self.boot_files

    def _note_descriptor(self, path: str, access: Access, *, is_folder: bool) -> None:
        text = describe(access.descriptor(is_folder=is_folder))
        self._note("descriptor", shown_file(path), "", "", text)

    def _note(self, kind: str, path: str, name: str, before: str, after: str) -> None:
        told = shown_path(path), shown_name(path, name) if name else "", before, after
        self.changes.append(Change(self.step, self.tier, kind, *map(printable, told)))


def key_path(hive: str, key: str) -> str:
    """Return a key's path as reports show it; the boot store is no part of HKLM."""
    return f"{hive}\\{key}" if hive == BOOT_STORE_HIVE else f"HKLM\\{hive}\\{key}"


def content_digest(content: bytes | Path) -> str:
    """Return what reports say about a file's content."""
    if isinstance(content, bytes):
        return f"{len(content)} bytes sha256:{hashlib.sha256(content).hexdigest()}"
    with content.open("rb") as file:  # an installer is no smaller than memory may be
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{content.stat().st_size} bytes sha256:{digest}"


def _told(files: GuestFiles, path: str, size_bytes: int) -> str:
    """Return what reports say about a guest's file that goes: of a large one its size only."""
    return _digest(files, path) if size_bytes <= _MAX_DIGEST_BYTES else f"{size_bytes} bytes"


def _digest(files: GuestFiles, path: str) -> str:
    """Return `content_digest` of a guest's file, by way of a copy here: memory may be smaller."""
    with tempfile.TemporaryDirectory(prefix="imageport-before-") as folder:
        copy = Path(folder) / "content"
        files.download(path, copy)
        return content_digest(copy)


def _bounded(text: str) -> str:
    if len(text) <= _MAX_BEFORE_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_MAX_BEFORE_CHARACTERS]}… {len(text)} characters sha256:{digest}"


def _shown_boot_file(path: str) -> str:
    return "boot:" + shown_file(path)


def _content(key: Key, path: str) -> list[str]:
    values = key.values().items()
    own = [f"{shown_name(path, n) or '@'}={shown(path, n, value)}" for n, value in values]
    for child in key.children():
        name = shown_name(path, child.name)
        own += [f"{name}\\{line}" for line in _content(child, f"{path}\\{child.name}")]
    return own
