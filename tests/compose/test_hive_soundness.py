"""A hive is judged before anything trusts it: each kind of damage is named, sound ones pass."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.hive import Hive, Key
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.hives.transaction_logs import replay
from imageport.errors import EngineFailed
from imageport.sandbox.sample.hive_logs import with_sequences
from tests.compose.hive_builder import PAGE, Node, build_hive

TREE = Node(
    children=[
        Node("Classed", {"Short": (4, b"\x01\0\0\0")}, class_name="of a class"),
        Node("Data", {"Empty": (0, b""), "Long": (3, b"x" * 9000), "Big": (3, b"y" * 40000)}),
        Node("Many", children=[Node(f"Key{n:04d}", {"v": (3, b"12345678")}) for n in range(700)]),
    ]
)
SOUND = build_hive(TREE)


def at_of(signature: bytes, hive: bytes = SOUND, which: int = 0) -> int:
    """Return the file offset of a cell by its signature."""
    at = -1
    for _ in range(which + 1):
        at = hive.index(signature, at + 1)
        while at % 8 != 4:
            at = hive.index(signature, at + 1)
    return at - 4


def poked(at: int, data: bytes, hive: bytes = SOUND) -> bytes:
    return hive[:at] + data + hive[at + len(data) :]


def word(number: int) -> bytes:
    return struct.pack("<I", number)


KEY, VALUE, SECURITY = at_of(b"nk"), at_of(b"vk"), at_of(b"sk")
LEAF, ROOT_LIST, BIG = at_of(b"lh"), at_of(b"ri"), at_of(b"db")


@pytest.mark.parametrize("minor", [3, 5])
def test_a_hive_as_windows_lays_it_out_is_sound(minor: int) -> None:
    assert hive_problem(build_hive(TREE, minor=minor)) == ""
    assert hive_problem(build_hive(Node(), minor=minor)) == ""


@pytest.mark.parametrize("name", ["\u041a\u043b\u044e\u0447", "\u0663", "Schl\u00fcssel", "\u9375"])
def test_names_of_other_alphabets_are_no_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "HIVE"
    path.write_bytes(build_hive(Node(children=[Node(name, children=[Node("a")]), Node("b")])))
    assert hive_problem(path.read_bytes()) == ""
    with Hive(path, writable=True) as hive:
        found = hive.key(name)
        assert found is not None
        assert [key.name for key in found.children()] == ["a"]
        hive.ensure(f"b\\{name}")
        hive.commit()
    assert hive_problem(path.read_bytes()) == ""


def test_padding_behind_the_last_bin_is_no_damage() -> None:
    assert hive_problem(SOUND + b"\xff" * 8192) == ""


def test_what_libhivex_writes_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "HIVE"
    path.write_bytes(SOUND)
    with Hive(path, writable=True) as hive:
        for number in range(600):
            hive.ensure(f"Many\\New{number}").set("v", hive.ensure("Data").values()["Long"])
        gone = hive.key("Classed")
        assert gone is not None
        gone.delete()
        hive.commit()
    assert hive_problem(path.read_bytes()) == ""


DAMAGE: dict[str, tuple[bytes, str]] = {
    "cut short": (SOUND[:-PAGE], "needed {length} by the base block"),
    "no page": (b"", "found 0 bytes"),
    "a length that is no page's": (
        with_sequences(poked(40, word(len(SOUND) - PAGE - 8)), 1, 1),
        "a multiple of 4096",
    ),
    "a zeroed page": (poked(2 * PAGE, bytes(PAGE)), "found"),
    "a zeroed bin": (poked(PAGE, bytes(PAGE)), "found signature 00000000, needed 'hbin'"),
    "a bin of another place": (poked(PAGE + 4, word(PAGE)), "Bad hive bin at offset 4096"),
    "a cell that runs over": (poked(KEY, struct.pack("<i", -8000)), "needed a multiple of 8"),
    "a cell of no size": (poked(KEY, bytes(4)), "found size 0"),
    "a key that is none": (poked(KEY + 4, b"NK"), "found signature 4e4b, needed 'nk'"),
    "a key of another parent": (poked(at_of(b"nk", which=1) + 20, word(8)), "found parent 8"),
    "a name that is too long": (poked(KEY + 76, b"\xff\xff"), "a name of 65535 bytes"),
    "a security link to nowhere": (poked(SECURITY + 8, word(4)), "needed one to an 'sk'"),
    "a descriptor that is too long": (poked(SECURITY + 20, word(9999)), "of 9999 bytes"),
    "a value that is none": (poked(VALUE + 4, b"VK"), "found signature 564b, needed 'vk'"),
    "data that is no cell": (poked(at_of(b"vk", which=2) + 12, word(4)), "Bad data"),
    "data outside": (poked(at_of(b"vk", which=2) + 12, word(0x7FFFFFF8)), "found no cell"),
    "data longer than its cell": (
        poked(at_of(b"vk", which=2) + 8, word(16000)),
        "needed 16004 at least",
    ),
    "too much data inside a value": (poked(VALUE + 8, word(0x80000005)), "needed 4 at most"),
    "big data that is none": (poked(BIG + 4, b"DB"), "found signature 4442, needed 'db'"),
    "big data of too few segments": (poked(BIG + 6, b"\x01\0"), "room for 40000 bytes"),
    "a list that is none": (poked(LEAF + 4, b"LH"), "needed lf, lh or li"),
    "a list that is too long": (poked(LEAF + 6, b"\xff\xff"), "found 65535 elements"),
    "a list of other keys": (poked(LEAF + 8, word(32)), "used twice"),
    "a list in itself": (poked(ROOT_LIST + 8, word(ROOT_LIST - PAGE)), "used twice"),
    "fewer keys than said": (poked(at_of(b"nk") + 24, word(9)), "found 3 subkeys in its lists"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_with_what_was_found(case: str) -> None:
    hive, why = DAMAGE[case]
    assert why.format(length=len(SOUND)) in hive_problem(hive)


def test_a_page_of_an_earlier_time_is_found() -> None:
    """One key more moves all others by one: an old page then looks right but for its names."""
    *others, many = TREE.children
    grown = Node("Many", children=[Node("Key", {"v": (3, b"12345678")}), *many.children])
    later = build_hive(Node(children=[*others, grown]))
    torn = [poked(at, SOUND[at : at + PAGE], later) for at in range(PAGE, len(SOUND), PAGE)]
    differing = [hive for hive in torn if hive != later]
    assert len(differing) > 20
    assert all(hive_problem(hive) for hive in differing)


def test_a_key_tree_too_deep_to_walk_is_refused() -> None:
    def tower(height: int) -> bytes:
        root = node = Node()
        for _ in range(height):
            node.children.append(Node("k"))
            node = node.children[0]
        return build_hive(root)

    assert hive_problem(tower(256)) == ""
    assert "found depth 257, needed 256 at most" in hive_problem(tower(257))


def look_at_all(key: Key) -> None:
    key.values()
    for child in key.children():
        look_at_all(child)


def opened(data: bytes, use: Callable[[Hive], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "HIVE"
        path.write_bytes(data)
        with Hive(path, writable=True) as hive:
            use(hive)


SMALL = build_hive(Node(children=[*TREE.children[:2], Node("Few", children=[Node("k")] * 1)]))


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=6))
@settings(deadline=None, max_examples=300)
def test_any_mutation_is_refused_or_can_be_worked_on(changes: list[tuple[int, int]]) -> None:
    """What soundness lets through, libhivex reads and writes without any error but our own."""
    data = bytearray(SMALL)
    for at, byte in changes:
        data[at] = byte
    hive = with_sequences(bytes(data), 1, 1)
    assert isinstance(HiveHeader.parse(bytes(data[:512])).problem, str)
    assert isinstance(replay(bytes(data), {".LOG1": bytes(data)}), str)
    if hive_problem(hive):
        return

    def use(opened_hive: Hive) -> None:
        look_at_all(opened_hive.root)
        opened_hive.ensure("New\\Key")
        opened_hive.commit()

    with suppress(EngineFailed):  # libhivex may still refuse: it has opinions of its own
        opened(hive, use)


@given(st.binary(max_size=300), st.integers(0, 2 * PAGE))
def test_any_bytes_get_an_answer(data: bytes, at: int) -> None:
    assert isinstance(hive_problem(data), str)
    assert isinstance(hive_problem(poked(PAGE + at, data, SMALL)[: len(SMALL)]), str)
