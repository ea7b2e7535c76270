# References: the regf format: hive bins, cells, key nodes, values, lists, security, big data.
"""Where the fields of a hive's cells lie, counted from the first byte of the cell's size."""

from __future__ import annotations

import struct

PAGE_BYTES = 4096
BIN_HEADER_BYTES = 32
BIN_HEADER = struct.Struct("<4sII")
"""Signature, own offset, size."""
CELL_UNIT_BYTES = 8
NO_CELL = 0xFFFFFFFF

KEY, VALUE, SECURITY, BIG_DATA = b"nk", b"vk", b"sk", b"db"
LEAF, FAST_LEAF, HASH_LEAF, ROOT = b"li", b"lf", b"lh", b"ri"
"""Lists of subkeys: offsets alone, two with a word beside each, and the list of such lists."""

KEY_NODE = struct.Struct("<4x2sH8x4xII4xI4xIIII20xHH")
"""Signature, flags, parent, count of subkeys, their list, count of values, their list, security,
class name, and past the rest the lengths of name and class name."""
KEY_NAME_AT = 80
NAME_IS_LATIN = 0x20
"""Flag of a key: one byte for a letter of its name (KEY_COMP_NAME), else UTF-16."""
VALUE_HEAD = struct.Struct("<4x2sHIIIH")
"""Signature, length of the name, size of the data, where it is, type, flags."""
VALUE_NAME_AT = 24
SECURITY_HEAD = struct.Struct("<4x2sHIIII")
"""Signature, reserved, next, previous, references, length of the descriptor."""
SECURITY_DATA_AT = 24
LIST_HEAD = struct.Struct("<4x2sH")
"""Signature, count; elements follow at 8."""
LIST_AT = 8
BIG_DATA_HEAD = struct.Struct("<4x2sHI")
"""Signature, count of segments, the list of them."""

INLINE = 0x80000000
"""Set in the size of data that lies in the offset's own place."""
MAX_INLINE_BYTES = 4
MAX_SEGMENT_BYTES = 16344
"""What one cell holds of data; larger data is a list of such pieces since minor version 4."""
FIRST_MINOR_WITH_BIG_DATA = 4
MAX_DEPTH = 256
"""Windows allows 512 levels for the whole registry, its own hives have 30; what walks a tree here,
and in libhivex, calls itself for each."""
