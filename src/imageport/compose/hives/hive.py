# References: hivex(3).
"""Registry hives: typed access to keys and values.

libhivex takes what it is given and makes a dirty hive look clean on commit: only copies that
`hive_copies` found sound come here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from imageport.compose.hives import hivex_binding as binding
from imageport.compose.hives.base_block import HEADER_BYTES, MAX_HIVE_BYTES, HiveHeader
from imageport.compose.hives.cell_layout import FIRST_MINOR_WITH_BIG_DATA, MAX_SEGMENT_BYTES
from imageport.compose.hives.registry_value import Value
from imageport.errors import EngineFailed


class Hive:
    """One hive file opened with libhivex.

    A writable hive is changed in memory; `commit` rewrites the file it was opened from. Whoever
    opened it closes it. `EngineFailed` when libhivex refuses the file or a change.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._library = binding.library()
        flags = binding.OPEN_WRITABLE if writable else 0
        self._handle = self._library.hivex_open(os.fsencode(path), flags)
        if not self._handle:
            raise self.failed("open", path.name)
        self.max_value_bytes = _max_value_bytes(path)

    @property
    def root(self) -> Key:
        """Return the root key."""
        node = self.call("hivex_root")
        if not node:
            raise self.failed("read the root of", self.path.name)
        return Key(self, node)

    def key(self, path: str) -> Key | None:
        r"""Return the key at a path like ``Select`` or ``ControlSet001\Services``, or None."""
        found: Key | None = self.root
        for name in filter(None, path.split("\\")):
            found = found.child(name) if found else None
        return found

    def value(self, path: str, name: str) -> Value | None:
        """Return one value, None when key or value is missing."""
        key = self.key(path)
        return key.value(name) if key else None

    def ensure(self, path: str) -> Key:
        """Return the key at a path, made where it is missing."""
        key = self.root
        for name in filter(None, path.split("\\")):
            key = key.child(name) or key.add(name)
        return key

    def commit(self) -> None:
        """Write all changes to the file the hive was opened from."""
        if self.call("hivex_commit", None, 0) != 0:
            raise self.failed("write", self.path.name)

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self._handle:
            self._library.hivex_close(self._handle)
            self._handle = None

    def call(self, function: str, *arguments: object) -> int:
        """Call a hivex function of this handle; 0 or NULL is left to the caller to judge."""
        if not self._handle:
            raise EngineFailed(f"Cannot use hive '{self.path.name}': it is closed.")
        ctypes.set_errno(0)
        return int(getattr(self._library, function)(self._handle, *arguments) or 0)

    def failed(self, verb: str, what: str) -> EngineFailed:
        """Return the error for a call that failed."""
        cause = os.strerror(ctypes.get_errno()) if ctypes.get_errno() else "not a sound hive"
        return EngineFailed(f"Cannot {verb} registry hive '{what}': {cause}.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Key:
    """One key; names compare without case, as in Windows."""

    hive: Hive
    node: int

    @property
    def name(self) -> str:
        """Return the key's own name."""
        return binding.take_text(self.hive.call("hivex_node_name", self.node))

    def child(self, name: str) -> Key | None:
        """Return a child key by name."""
        node = self.hive.call("hivex_node_get_child", self.node, _encoded(name))
        return Key(self.hive, node) if node else None

    def children(self) -> list[Key]:
        """Return all child keys in the hive's order."""
        pointer = self.hive.call("hivex_node_children", self.node)
        return [Key(self.hive, node) for node in binding.take_handles(pointer)]

    def add(self, name: str) -> Key:
        """Add a child key that does not exist yet."""
        node = self.hive.call("hivex_node_add_child", self.node, _encoded(name))
        if not node:
            raise self.hive.failed("add a key to", self.hive.path.name)
        return Key(self.hive, node)

    def delete(self) -> None:
        """Delete this key and everything below it."""
        if self.hive.call("hivex_node_delete_child", self.node) != 0:
            raise self.hive.failed("delete a key of", self.hive.path.name)

    def value(self, name: str) -> Value | None:
        """Return a value by name ("" is the default value)."""
        handle = self.hive.call("hivex_node_get_value", self.node, _encoded(name))
        return self._read(handle) if handle else None

    def text(self, name: str) -> str:
        """Return a text value, "" when missing."""
        value = self.value(name)
        return value.as_text() if value else ""

    def number(self, name: str) -> int | None:
        """Return a DWORD value, None when missing or of another type."""
        value = self.value(name)
        return value.as_number() if value else None

    def values(self) -> dict[str, Value]:
        """Return all values by name."""
        return {name: self._read(handle) for name, handle in self._handles()}

    def set(self, name: str, value: Value) -> None:
        """Set one value; others stay.

        Raises:
            EngineFailed: the key holds, or would hold, a value that libhivex cannot write.
        """
        spelled = self._rewritten_beside(name) or name
        self._check_size(name, len(value.data))
        item = _set_value(spelled, value)
        if self.hive.call("hivex_node_set_value", self.node, ctypes.byref(item), 0) != 0:
            raise self.hive.failed("set a value in", self.hive.path.name)

    def delete_value(self, name: str) -> None:
        """Delete one value if it is there; others stay.

        Raises:
            EngineFailed: one of those is larger than libhivex can write.
        """
        self._rewritten_beside(name)
        kept = {n: v for n, v in self.values().items() if n.lower() != name.lower()}
        items = (binding.SetValue * len(kept))(*[_set_value(n, v) for n, v in kept.items()])
        if self.hive.call("hivex_node_set_values", self.node, len(kept), items, 0) != 0:
            raise self.hive.failed("delete a value in", self.hive.path.name)

    def _handles(self) -> Iterator[tuple[str, int]]:
        for handle in binding.take_handles(self.hive.call("hivex_node_values", self.node)):
            yield binding.take_text(self.hive.call("hivex_value_key", handle)), handle

    def _rewritten_beside(self, name: str) -> str:
        """Return how a value's name is spelled, "" when it is new; the others can be rewritten.

        libhivex writes all values of a key anew when one changes.
        """
        spelled = ""
        for known, handle in self._handles():
            if known.lower() == name.lower():
                spelled = known
                continue
            length = ctypes.c_size_t()
            self.hive.call("hivex_value_type", handle, None, ctypes.byref(length))
            self._check_size(known, length.value)
        return spelled

    def _check_size(self, name: str, length: int) -> None:
        """Refuse what libhivex would write as one cell, which Windows reads as damage."""
        most = self.hive.max_value_bytes
        if length > most:
            raise EngineFailed(
                f"Cannot change key '{self.name}' of registry hive '{self.hive.path.name}': "
                f"found value '{name}' of {length} bytes, needed {most} or less."
            )

    def _read(self, handle: int) -> Value:
        kind, length = ctypes.c_int(), ctypes.c_size_t()
        pointer = self.hive.call(
            "hivex_value_value", handle, ctypes.byref(kind), ctypes.byref(length)
        )
        # The type is an int to libhivex; those of device properties have the highest bit set.
        return Value(kind.value & 0xFFFFFFFF, binding.take_bytes(pointer, length.value))


def _max_value_bytes(path: Path) -> int:
    """Return what one value may hold: beyond it Windows wants pieces, which libhivex reads only."""
    with path.open("rb") as file:
        header = HiveHeader.parse(file.read(HEADER_BYTES))
    return MAX_SEGMENT_BYTES if header.minor >= FIRST_MINOR_WITH_BIG_DATA else MAX_HIVE_BYTES


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _set_value(name: str, value: Value) -> binding.SetValue:
    return binding.SetValue(_encoded(name), value.kind, len(value.data), value.data)
