# References: the regf format: hive bins, cells and what refers to them.
"""Whether a hive is whole, before anything trusts or changes it.

libhivex reads what it is asked for and skips what it finds damaged; a write into such a hive makes
it worse. So every bin, every cell and every reference is looked at first: a page that is zeros, of
another time or missing shows up as a reference that leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from imageport.compose.hives import cell_layout as layout
from imageport.compose.hives.base_block import BASE_BLOCK_BYTES, HEADER_BYTES, HiveHeader
from imageport.compose.hives.log_layout import bins_problem
from imageport.errors import BadDisk

_FREE, _ALLOCATED, _USED = 0, 1, 2
_LEAF_WORDS = {layout.FAST_LEAF: 2, layout.HASH_LEAF: 2, layout.LEAF: 1}
"""Lists of subkeys and how many words an element of each has."""
_NO_HASH = -1


def hive_problem(data: bytes) -> str:
    """Return what is damaged in a clean hive's file, with offset, found and needed; "" if sound.

    Any bytes may be handed in. About 6 s for a hive of 150 MiB.
    """
    header = HiveHeader.parse(data[:HEADER_BYTES])
    if header.problem or (problem := bins_problem(header.bins_bytes)):
        return header.problem or problem
    needed = BASE_BLOCK_BYTES + header.bins_bytes
    if len(data) < needed:
        return f"found {len(data)} bytes, needed {needed} by the base block"
    try:
        _Walk(data, header).run()
    except BadDisk as error:
        return error.message
    return ""


class _Walk:
    """One look at everything; offsets inside are from the first hive bin, in messages the file's.

    A cell belongs to one owner, security descriptors aside; so each is visited once, whatever a
    hostile hive claims, and a second reference to one is damage.
    """

    def __init__(self, data: bytes, header: HiveHeader) -> None:
        self._header = header
        self._bins = memoryview(data)[BASE_BLOCK_BYTES : BASE_BLOCK_BYTES + header.bins_bytes]
        # In the machine's own byte order, little-endian wherever the engine runs: reading words
        # by struct instead takes three times as long.
        self._sizes = self._bins.cast("i")
        self._words = self._bins.cast("I")
        self._states = bytearray(header.bins_bytes // layout.CELL_UNIT_BYTES)
        self._security: set[int] = set()

    def run(self) -> None:
        """Look at all; `BadDisk` names the first thing that is wrong."""
        at = 0
        while at < self._header.bins_bytes:
            at = self._bin(at)
        waiting = [(self._header.root, _NO_HASH, layout.NO_CELL, 0)]
        while waiting:
            key, name_hash, parent, depth = waiting.pop()
            if depth > layout.MAX_DEPTH:
                raise self._bad("key", key, f"depth {depth}", f"{layout.MAX_DEPTH} at most")
            children = self._key(key, parent, name_hash)
            waiting += [(child, hashed, key, depth + 1) for child, hashed in children]

    def _bin(self, start: int) -> int:
        """Look at one bin and note its allocated cells; returns where the next begins."""
        signature, own, size = layout.BIN_HEADER.unpack_from(self._bins, start)
        if signature != b"hbin":
            raise self._bad("hive bin", start, f"signature {signature.hex()}", "'hbin'")
        end: int = start + size
        if own != start or not size or size % layout.PAGE_BYTES or end > len(self._bins):
            measure = f"offset {own} and size {size}"
            needed = f"offset {start} and a multiple of 4096 inside the hive"
            raise self._bad("hive bin", start, measure, needed)
        sizes, states = self._sizes, self._states
        at = start + layout.BIN_HEADER_BYTES
        while at < end:
            length = sizes[at >> 2]
            if length < 0:
                length = -length
                states[at >> 3] = _ALLOCATED
            if length < layout.CELL_UNIT_BYTES or length & 7 or at + length > end:
                needed = f"a multiple of 8, {end - at} at most"
                raise self._bad("cell", at, f"size {length}", needed)
            at += length
        return end

    def _key(self, at: int, parent: int, name_hash: int) -> Iterable[tuple[int, int]]:
        """Look at one key node and all that belongs to it; returns its subkeys and their hashes."""
        size = self._take("key", at, layout.KEY_NAME_AT)
        (
            signature,
            flags,
            own_parent,
            subkeys,
            subkey_list,
            values,
            value_list,
            security,
            class_name,
            name_bytes,
            class_bytes,
        ) = layout.KEY_NODE.unpack_from(self._bins, at)
        if signature != layout.KEY:
            raise self._bad("key", at, f"signature {signature.hex()}", "'nk'")
        if size < layout.KEY_NAME_AT + name_bytes:
            raise self._bad("key", at, f"a name of {name_bytes} bytes", f"room in {size}")
        if parent not in {own_parent, layout.NO_CELL}:
            raise self._bad("key", at, f"parent {own_parent}", str(parent))
        if name_hash != _NO_HASH:
            self._check_name(at, name_bytes, name_hash, flags)
        self._check_security(security)
        if class_bytes and class_name != layout.NO_CELL:
            self._take("class name", class_name, 4 + class_bytes)
        if values:
            for value in self._offsets("list of values", value_list, values):
                self._value(value)
        return self._subkeys(at, subkey_list, subkeys) if subkeys else ()

    def _check_name(self, at: int, name_bytes: int, needed: int, flags: int) -> None:
        """Compare a key's name with the hash beside it in its list; a page of another time differs.

        Names beyond ASCII are left out: their upper case is a table of Windows' own.
        """
        first = at + layout.KEY_NAME_AT
        written = bytes(self._bins[first : first + name_bytes])
        encoding = "latin-1" if flags & layout.NAME_IS_LATIN else "utf-16-le"
        name = written.decode(encoding, "replace")
        if not name.isascii():
            return
        found = 0
        for letter in name.upper().encode("ascii"):
            found = (37 * found + letter) & 0xFFFFFFFF
        if found != needed:
            raise self._bad("key", at, f"name hash {found:#010x}", f"{needed:#010x}")

    def _value(self, at: int) -> None:
        size = self._take("value", at, layout.VALUE_NAME_AT)
        signature, name_bytes, length, place, _, _ = layout.VALUE_HEAD.unpack_from(self._bins, at)
        if signature != layout.VALUE:
            raise self._bad("value", at, f"signature {signature.hex()}", "'vk'")
        if size < layout.VALUE_NAME_AT + name_bytes:
            raise self._bad("value", at, f"a name of {name_bytes} bytes", f"room in {size}")
        if length & layout.INLINE:
            if length - layout.INLINE > layout.MAX_INLINE_BYTES:
                raise self._bad("value", at, f"{length - layout.INLINE} bytes inside", "4 at most")
        elif length > layout.MAX_SEGMENT_BYTES and (
            self._header.minor >= layout.FIRST_MINOR_WITH_BIG_DATA
        ):
            self._big_data(place, length)
        elif length:
            self._take("data", place, 4 + length)

    def _big_data(self, at: int, length: int) -> None:
        self._take("big data", at, layout.BIG_DATA_HEAD.size)
        signature, count, place = layout.BIG_DATA_HEAD.unpack_from(self._bins, at)
        if signature != layout.BIG_DATA:
            raise self._bad("big data", at, f"signature {signature.hex()}", "'db'")
        if count * layout.MAX_SEGMENT_BYTES < length:
            raise self._bad("big data", at, f"{count} segments", f"room for {length} bytes")
        left = length
        for segment in self._offsets("list of segments", place, count):
            self._take("segment", segment, 4 + min(max(left, 0), layout.MAX_SEGMENT_BYTES))
            left -= layout.MAX_SEGMENT_BYTES

    def _subkeys(self, key: int, at: int, count: int) -> list[tuple[int, int]]:
        signature, elements = self._list_head(at)
        if signature == layout.ROOT:
            children: list[tuple[int, int]] = []
            for leaf in self._elements(at, elements, 1)[0]:
                children += self._leaf(leaf, *self._list_head(leaf))
        else:
            children = self._leaf(at, signature, elements)
        if len(children) != count:
            raise self._bad("key", key, f"{len(children)} subkeys in its lists", str(count))
        return children

    def _leaf(self, at: int, signature: bytes, count: int) -> list[tuple[int, int]]:
        words = _LEAF_WORDS.get(signature)
        if words is None:
            raise self._bad("list of subkeys", at, f"signature {signature.hex()}", "lf, lh or li")
        keys, hashes = self._elements(at, count, words)
        if signature != layout.HASH_LEAF:
            hashes = [_NO_HASH] * count
        return list(zip(keys, hashes, strict=True))

    def _list_head(self, at: int) -> tuple[bytes, int]:
        self._take("list of subkeys", at, layout.LIST_AT)
        signature, count = layout.LIST_HEAD.unpack_from(self._bins, at)
        return signature, count

    def _elements(self, at: int, count: int, words: int) -> tuple[list[int], list[int]]:
        """Return the first and the last word of each element."""
        size = -self._sizes[at >> 2]
        if size < layout.LIST_AT + 4 * count * words:
            raise self._bad("list of subkeys", at, f"{count} elements", f"room in {size} bytes")
        first = (at + layout.LIST_AT) >> 2
        taken = self._words[first : first + count * words].tolist()
        return taken[::words], taken[words - 1 :: words]

    def _offsets(self, what: str, at: int, count: int) -> list[int]:
        """Return a bare list of offsets, as values and segments have."""
        self._take(what, at, 4 + 4 * count)
        first = (at + 4) >> 2
        return self._words[first : first + count].tolist()

    def _check_security(self, at: int) -> None:
        """Look at a descriptor, once for all keys that share it."""
        if at in self._security:
            return
        size = self._take("security", at, layout.SECURITY_DATA_AT)
        signature, _, following, previous, _, length = layout.SECURITY_HEAD.unpack_from(
            self._bins, at
        )
        if signature != layout.SECURITY:
            raise self._bad("security", at, f"signature {signature.hex()}", "'sk'")
        if size < layout.SECURITY_DATA_AT + length:
            raise self._bad("security", at, f"a descriptor of {length} bytes", f"room in {size}")
        for link in (following, previous):
            is_cell = link % 8 == 0 and link < len(self._bins) and self._states[link >> 3]
            if not is_cell or self._bins[link + 4 : link + 6] != layout.SECURITY:
                raise self._bad("security", at, f"a link to {link}", "one to an 'sk'")
        self._security.add(at)

    def _take(self, what: str, at: int, needed: int) -> int:
        """Return the size of an allocated cell that nothing else has, now taken."""
        if at % layout.CELL_UNIT_BYTES or at >= len(self._bins):
            raise self._bad(what, at, "no cell", f"one inside {len(self._bins)} bytes")
        state = self._states[at >> 3]
        if state != _ALLOCATED:
            found = "one that is used twice" if state == _USED else "no allocated cell"
            raise self._bad(what, at, found, "one of its own")
        self._states[at >> 3] = _USED
        size = -self._sizes[at >> 2]
        if size < needed:
            raise self._bad(what, at, f"{size} bytes", f"{needed} at least")
        return size

    @staticmethod
    def _bad(what: str, at: int, found: str, needed: str) -> BadDisk:
        where = at + BASE_BLOCK_BYTES
        return BadDisk(f"Bad {what} at offset {where}: found {found}, needed {needed}.")
