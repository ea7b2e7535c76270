"""Joining many objects: in order, at most 32 at a time, checked, and never twice.

Recipe: a store in memory that joins as Cloud Storage does, and can fail at any request.
"""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.clouds.gcp.compose_tree import MOST_SOURCES, ComposeTree, Part
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone, VerificationFailed

FOLDER = "tmp/image/"
WHOLE = "tmp/image/disk.tar.gz"


class Store:
    """Objects by key, with generations; ``fails`` are numbers of requests and what they raise."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.requests: list[tuple[str, int]] = []
        self.fails: dict[int, Exception] = {}
        self.loses_answers = False
        self._generation = 100
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> Part:
        self._generation += 1
        self.objects[key] = (data, self._generation)
        return self.part(key)

    def part(self, key: str) -> Part:
        data, generation = self.objects[key]
        return Part(key, len(data), google_crc32c.value(data), generation)

    def there(self) -> dict[str, Part]:
        return {key: self.part(key) for key in self.objects if key.startswith(FOLDER)}

    def compose(self, key: str, parts: Sequence[Part], generation: int) -> Part:
        with self._lock:
            self.requests.append((key, len(parts)))
            failure = self.fails.pop(len(self.requests), None)
            if failure is not None and not self.loses_answers:
                raise failure
            if self.objects.get(key, (b"", 0))[1] == generation:
                assert 1 <= len(parts) <= MOST_SOURCES
                self.put(key, b"".join(self._source(part) for part in parts))
            if failure is not None:
                raise failure
            return self.part(key)

    def _source(self, part: Part) -> bytes:
        if part.key not in self.objects:
            raise ResourceGone(f"Cannot join '{part.key}': it is gone.")
        data, generation = self.objects[part.key]
        assert part.generation == generation
        return data


def filled(count: int) -> tuple[Store, list[Part]]:
    store = Store()
    return store, [store.put(f"seg/{number}", b"%d." % number) for number in range(count)]


def whole_of(count: int) -> bytes:
    return b"".join(b"%d." % number for number in range(count))


@settings(max_examples=25, deadline=None)
@given(st.one_of(st.integers(1, 70), st.sampled_from([1023, 1024, 1025, 1056, 1057, 2500])))
def test_any_number_of_parts_is_joined_in_order_by_few_balanced_requests(count: int):
    store, parts = filled(count)
    tree = ComposeTree(parts, WHOLE, FOLDER)
    whole = tree.carry_out(store, {})
    assert store.objects[WHOLE][0] == whole_of(count)
    assert whole == store.part(WHOLE)
    assert (whole.size_bytes, whole.crc32c) == (tree.whole.size_bytes, tree.whole.crc32c)
    assert len(store.requests) == tree.joins
    level, needed = count, 0
    while not needed or level > 1:
        level = -(-level // MOST_SOURCES)
        needed += level
    assert tree.joins == needed
    widths = [width for _key, width in store.requests[: -(-count // MOST_SOURCES)]]
    assert max(widths) - min(widths) <= 1


def test_one_part_may_stand_at_several_places():
    store, (first, second) = filled(2)
    parts = [first, second, first, *([second] * 70), first]
    ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    assert store.objects[WHOLE][0] == b"0.1.0." + b"1." * 70 + b"0."


def test_nothing_to_join_is_refused():
    with pytest.raises(ValueError, match="Bad join: found no part"):
        ComposeTree([], WHOLE, FOLDER)


@pytest.mark.parametrize("killed_at", [1, 5, 32, 33, 34])
def test_after_a_kill_only_what_is_missing_is_joined(killed_at: int):
    store, parts = filled(1100)
    store.fails = dict.fromkeys(range(killed_at, 100), CloudRefused("Cannot join: killed."))
    with pytest.raises(CloudRefused, match="killed"):
        ComposeTree(parts, WHOLE, FOLDER).carry_out(store, store.there())
    made = len(store.there())
    assert made == killed_at - 1
    store.requests.clear()
    store.fails.clear()
    tree = ComposeTree(parts, WHOLE, FOLDER)
    tree.carry_out(store, store.there())
    assert store.objects[WHOLE][0] == whole_of(1100)
    assert len(store.requests) == tree.joins - made


def test_a_whole_that_is_there_needs_no_request_although_its_parts_are_gone():
    store, parts = filled(100)
    first = ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    for part in parts:
        del store.objects[part.key]
    store.requests.clear()
    assert ComposeTree(parts, WHOLE, FOLDER).carry_out(store, store.there()) == first
    assert store.requests == []


def test_what_is_there_of_another_disk_is_written_over():
    store, parts = filled(100)
    ComposeTree(parts[:50], WHOLE, FOLDER).carry_out(store, {})
    ComposeTree(parts, WHOLE, FOLDER).carry_out(store, store.there())
    assert store.objects[WHOLE][0] == whole_of(100)


def test_a_lost_answer_is_no_harm():
    store, parts = filled(100)
    store.loses_answers = True
    store.fails = dict.fromkeys((1, 3, 5), CloudUnavailable("Cannot join: no answer."))
    ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    assert store.objects[WHOLE][0] == whole_of(100)


def test_a_part_of_other_bytes_than_its_checksum_says_is_found_at_the_first_join():
    store, parts = filled(100)
    wrong = parts[60]
    data, generation = store.objects[wrong.key]
    store.objects[wrong.key] = (data[::-1], generation)
    with pytest.raises(
        VerificationFailed, match=r"Bad object 'tmp/image/0-\d+-[0-9a-f]{8}': found CRC"
    ):
        ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    assert WHOLE not in store.objects


def test_a_longer_part_is_found_too():
    store, parts = filled(3)
    data, generation = store.objects[parts[1].key]
    store.objects[parts[1].key] = (data + b"x", generation)
    with pytest.raises(VerificationFailed, match="found 7 bytes, needed 6 by its parts"):
        ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})


def test_what_was_joined_wrongly_is_joined_anew_the_next_time():
    store, parts = filled(100)
    ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    between = next(key for key in store.there() if key != WHOLE)
    store.put(between, b"damaged")
    store.put(WHOLE, b"damaged too")
    ComposeTree(parts, WHOLE, FOLDER).carry_out(store, store.there())
    assert store.objects[WHOLE][0] == whole_of(100)


def test_a_part_that_is_gone_ends_it_and_nothing_is_made():
    store, parts = filled(3000)
    del store.objects[parts[0].key]
    with pytest.raises(ResourceGone, match="'seg/0'"):
        ComposeTree(parts, WHOLE, FOLDER).carry_out(store, {})
    assert WHOLE not in store.objects


class Unmade:
    """Eight thousand parts, each made when it is asked for."""

    def __len__(self) -> int:
        return 8000

    def __getitem__(self, place: int) -> Part:
        return Part(f"seg/{place:064}", 200_000, place, 1)


def test_parts_that_are_made_when_they_are_asked_for_are_not_kept():
    tracemalloc.start()
    try:
        tree = ComposeTree(Unmade(), WHOLE, FOLDER)
        assert tracemalloc.get_traced_memory()[1] < 40 * 8000
    finally:
        tracemalloc.stop()
    assert tree.whole.size_bytes == 200_000 * 8000


def test_every_join_is_a_sign_of_life():
    store, parts = filled(100)
    pulses: list[None] = []
    tree = ComposeTree(parts, WHOLE, FOLDER)
    tree.carry_out(store, {}, pulse=lambda: pulses.append(None))
    assert len(pulses) == tree.joins
