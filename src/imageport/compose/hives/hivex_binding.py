"""libhivex through ctypes: libguestfs itself needs this library, so it is wherever we run.

Its own Python module is a package of its own that engine machines do not have. Reference: hivex(3).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from functools import cache

from imageport.errors import EngineFailed, MissingTool

OPEN_WRITABLE = 4
"""HIVEX_OPEN_WRITE."""

_Node = ctypes.c_size_t
_Handle = ctypes.c_void_p


class SetValue(ctypes.Structure):
    """``struct hive_set_value``."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("length", ctypes.c_size_t),
        ("value", ctypes.c_char_p),
    )


_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "hivex_open": (_Handle, (ctypes.c_char_p, ctypes.c_int)),
    "hivex_close": (ctypes.c_int, (_Handle,)),
    "hivex_root": (_Node, (_Handle,)),
    "hivex_node_name": (ctypes.c_void_p, (_Handle, _Node)),
    "hivex_node_children": (ctypes.c_void_p, (_Handle, _Node)),
    "hivex_node_get_child": (_Node, (_Handle, _Node, ctypes.c_char_p)),
    "hivex_node_values": (ctypes.c_void_p, (_Handle, _Node)),
    "hivex_node_get_value": (_Node, (_Handle, _Node, ctypes.c_char_p)),
    "hivex_value_key": (ctypes.c_void_p, (_Handle, _Node)),
    "hivex_value_type": (ctypes.c_int, (_Handle, _Node, ctypes.c_void_p, ctypes.c_void_p)),
    "hivex_value_value": (ctypes.c_void_p, (_Handle, _Node, ctypes.c_void_p, ctypes.c_void_p)),
    "hivex_commit": (ctypes.c_int, (_Handle, ctypes.c_char_p, ctypes.c_int)),
    "hivex_node_add_child": (_Node, (_Handle, _Node, ctypes.c_char_p)),
    "hivex_node_delete_child": (ctypes.c_int, (_Handle, _Node)),
    "hivex_node_set_values": (
        ctypes.c_int,
        (_Handle, _Node, ctypes.c_size_t, ctypes.POINTER(SetValue), ctypes.c_int),
    ),
    "hivex_node_set_value": (
        ctypes.c_int,
        (_Handle, _Node, ctypes.POINTER(SetValue), ctypes.c_int),
    ),
}


@cache
def library() -> ctypes.CDLL:
    """Return the loaded library with its prototypes declared."""
    name = ctypes.util.find_library("hivex") or "libhivex.so.0"
    try:
        loaded = ctypes.CDLL(name, use_errno=True)
    except OSError as error:
        raise MissingTool(
            "Cannot edit registry hives: libhivex is not installed.",
            hint="Install libguestfs (Debian and Ubuntu: python3-guestfs, libhivex0).",
        ) from error
    for function, (result, arguments) in _PROTOTYPES.items():
        entry = getattr(loaded, function)
        entry.restype = result
        entry.argtypes = list(arguments)
    return loaded


@cache
def _free() -> ctypes._NamedFuncPointer:
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free.restype = None
    return free


def _unread(what: str) -> EngineFailed:
    """Return the error for what libhivex does not hand out: it is too large, or no text."""
    cause = os.strerror(ctypes.get_errno())
    return EngineFailed(f"Cannot read the registry: libhivex returned no {what}: {cause}.")


def take_text(pointer: int | None) -> str:
    """Return the text at a malloc'ed pointer and free it."""
    if not pointer:
        raise _unread("text")
    try:
        return ctypes.string_at(pointer).decode("utf-8", "surrogateescape")
    finally:
        _free()(pointer)


def take_bytes(pointer: int | None, length: int) -> bytes:
    """Return ``length`` bytes at a malloc'ed pointer and free it."""
    if not pointer:
        raise _unread("data")
    try:
        return ctypes.string_at(pointer, length)
    finally:
        _free()(pointer)


def take_handles(pointer: int | None) -> list[int]:
    """Return a malloc'ed list of handles that ends with 0, and free it."""
    if not pointer:
        raise _unread("list")
    handles: list[int] = []
    step = ctypes.sizeof(_Node)
    try:
        while handle := _Node.from_address(pointer + step * len(handles)).value:
            handles.append(handle)
    finally:
        _free()(pointer)
    return handles
