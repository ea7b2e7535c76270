"""Transaction logs: what Windows would apply is applied, everything else ends it or is refused.

Logs are written by `hive_builder` from the format's description. A second opinion on where pages
go comes from regipy, which knows both formats (but looks at no hash).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.log_layout import LogFile, marvin32
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.hives.transaction_logs import Replayed, replay
from imageport.sandbox.sample.hive_logs import (
    changed_pages,
    log_entry,
    new_log,
    old_log,
    with_sequences,
)
from tests.compose.hive_builder import PAGE, Node, build_hive
from tests.compose.second_replay import replayed_by_regipy

BEFORE = build_hive(
    Node(children=[Node("Key", {"Name": (1, b"before\0")}), Node("Big", {"x": (3, bytes(9000))})]),
    sequence=10,
)
AFTER = build_hive(
    Node(children=[Node("Key", {"Name": (1, b"after!\0")}), Node("Big", {"x": (3, b"y" * 20000)})]),
    sequence=10,
)
DIRTY = with_sequences(BEFORE, 11, 10)


def state(number: int) -> bytes:
    """Return a sound hive whose first key tells its number; every state has the same length."""
    return build_hive(Node(children=[Node("Key", {"Number": (3, bytes([number]) * 5000)})]))


STATES = [state(number) for number in range(6)]
"""The hive as it was at sequence 10, then after each of the entries 11 to 15."""


def entry(number: int) -> bytes:
    before, after = STATES[number - 11], STATES[number - 10]
    return log_entry(number, len(after) - PAGE, changed_pages(before, after))


def entries_log(*numbers: int, start: int | None = None) -> bytes:
    first = numbers[0] if start is None else start
    return new_log([entry(number) for number in numbers], sequence=first, like=STATES[0])


BEHIND = with_sequences(STATES[0], 11, 10)


def recovered(result: Replayed | str) -> bytes:
    assert isinstance(result, Replayed), result
    header = HiveHeader.parse(result.data[:512])
    assert (header.is_dirty, header.problem, header.file_type) == (False, "", 0)
    assert header.bins_bytes <= len(result.data) - PAGE
    return result.data[PAGE : PAGE + header.bins_bytes]


def bins(hive: bytes) -> bytes:
    return hive[PAGE:]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("", 0x30ED35C100CD3C7D),
        ("AF", 0x48E73FC77D75DDC1),
        ("E70F", 0xB5F6E1FC485DBFF8),
        ("37F495", 0xF0B07C789B8CF7E8),
        ("8642DC59", 0x7008F2E87E9CF556),
        ("153FB79826", 0xE6C08C6DA2AFA997),
        ("0932E6246C47", 0x6F04BF1A5EA24060),
    ],
)
def test_marvin32_gives_microsofts_published_values(data: str, value: int) -> None:
    assert marvin32(bytes.fromhex(data), 0x004FB61A001BDBCC) == value


NEW = {
    "both logs in turn": ({".LOG1": entries_log(11, 12), ".LOG2": entries_log(13, 14, 15)}, 5),
    "the older one is LOG2": ({".LOG1": entries_log(14, 15), ".LOG2": entries_log(11, 12, 13)}, 5),
    "one log": ({".LOG1": entries_log(11, 12, 13)}, 3),
    "a log that was never used": ({".LOG1": entries_log(11), ".LOG2": b""}, 1),
    "a gap between the logs": ({".LOG1": entries_log(11), ".LOG2": entries_log(13, 14)}, 1),
    "a gap inside a log": ({".LOG1": entries_log(11, 13)}, 1),
    "what older writes left": ({".LOG1": entries_log(13, 14, 11, start=13)}, None),
    "entries the hive has": (
        {
            ".LOG1": new_log(
                [log_entry(9, PAGE, []), log_entry(10, PAGE, []), entry(11)],
                sequence=9,
                like=STATES[0],
            )
        },
        1,
    ),
    "a torn last entry": ({".LOG1": entries_log(11, 12, 13)[:-1024]}, 2),
    "an entry cut in its head": ({".LOG1": entries_log(11) + entry(12)[:30]}, 1),
}


@pytest.mark.parametrize("case", NEW)
def test_entries_are_applied_while_their_numbers_follow(case: str) -> None:
    logs, states = NEW[case]
    if states is None:
        # 13 and 14 lie after a hole: Windows starts at the first that is new enough.
        hive = with_sequences(STATES[2], 11, 10)
        assert recovered(replay(hive, logs)) == bins(STATES[4])
    else:
        assert recovered(replay(BEHIND, logs)) == bins(STATES[states])


def test_a_replayed_hive_is_past_everything_in_its_logs() -> None:
    torn = bytearray(entries_log(11, 12, 13, 14, 15))
    torn[512 + len(entry(11)) + 100] ^= 1
    result = replay(BEHIND, {".LOG1": bytes(torn)})
    assert isinstance(result, Replayed)
    header = HiveHeader.parse(result.data[:512])
    assert (header.sequence1, header.sequence2) == (16, 16)
    assert "1 entry of .LOG1 up to 11, ended by .LOG1: found hash" in result.told


def test_the_base_block_is_recovered_from_the_log() -> None:
    broken = bytearray(BEHIND)
    broken[40:44] = b"\xff\xff\xff\x7f"
    logs = {".LOG1": entries_log(11, 12), ".LOG2": entries_log(13, 14)}
    assert recovered(replay(bytes(broken), logs)) == bins(STATES[4])
    assert recovered(replay(bytes(512) + BEHIND[512:], logs)) == bins(STATES[4])


def test_without_a_base_block_an_older_log_that_does_not_lead_on_is_left_out() -> None:
    """The hive is at state 3; applying entry 11 first would put parts of state 1 back."""
    broken = bytes(512) + STATES[3][512:]
    logs = {".LOG1": entries_log(11), ".LOG2": entries_log(14, 15)}
    assert recovered(replay(broken, logs)) == bins(STATES[5])


def test_a_hive_grows_with_its_log() -> None:
    assert len(AFTER) > len(BEFORE)
    pages = changed_pages(BEFORE, AFTER)
    log = new_log([log_entry(11, len(AFTER) - PAGE, pages)], sequence=11, like=BEFORE)
    result = replay(DIRTY, {".LOG1": log})
    assert recovered(result) == bins(AFTER)
    assert isinstance(result, Replayed)
    assert hive_problem(result.data) == ""


@pytest.mark.parametrize("name", [".LOG", ".LOG1", ".LOG2"])
def test_a_log_of_the_old_format_is_applied_where_the_times_agree(name: str) -> None:
    result = replay(DIRTY, {name: old_log(BEFORE, AFTER, sequence=12)})
    assert recovered(result) == bins(AFTER)
    assert isinstance(result, Replayed)
    assert HiveHeader.parse(result.data[:512]).sequence1 == 13
    headless = bytes(512) + DIRTY[512:]
    assert recovered(replay(headless, {name: old_log(BEFORE, AFTER, sequence=12)})) == bins(AFTER)


def test_an_old_log_of_another_time_is_not_applied() -> None:
    other = bytearray(DIRTY)
    other[12] ^= 1
    hive = with_sequences(bytes(other), 11, 10)
    result = replay(hive, {".LOG": old_log(BEFORE, AFTER, sequence=12)})
    assert result == "no log has the time at which the hive was last written"


REFUSED = {
    "no logs": ({}, "there are no transaction logs beside it"),
    "empty logs": ({".LOG1": b"", ".LOG2": b""}, ".LOG1 is empty; .LOG2 is empty"),
    "no log": ({".LOG1": b"MZ" + bytes(600)}, ".LOG1 found signature"),
    "a hive for a log": ({".LOG1": BEFORE}, ".LOG1 found file type 0, needed 1 or 6"),
    "a log that is dirty itself": (
        {".LOG1": with_sequences(entries_log(11), 11, 10)},
        ".LOG1 found sequence numbers 11/10",
    ),
    "old entries only": (
        {".LOG1": new_log([log_entry(9, PAGE, [])], sequence=9, like=BEFORE)},
        "no whole log entry follows sequence number 11",
    ),
    "a page outside": (
        {".LOG1": new_log([log_entry(11, PAGE, [(PAGE, bytes(PAGE))])], sequence=11, like=BEFORE)},
        "outside the hive",
    ),
    "pages that are not there": (
        {".LOG1": new_log([log_entry(11, PAGE, [(0, b"")] * 9)], sequence=0xFFFFFFFF, like=BEFORE)},
        "found sequence number 4294967295",
    ),
    "an old log cut short": (
        {".LOG1": old_log(BEFORE, AFTER, sequence=12)[:-512]},
        "dirty pages",
    ),
    "an old log without its vector": (
        {".LOG1": old_log(BEFORE, AFTER, sequence=12)[:512] + bytes(9000)},
        "found no dirty vector at offset 512",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_applied_says_why(case: str) -> None:
    logs, why = REFUSED[case]
    result = replay(DIRTY, logs)
    assert isinstance(result, str)
    assert why in result


PAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Return states of a hive's bins and the entries between them, from sequence 11 on."""
    states, entries = [bytes(2 * PAGE)], []
    for number in range(draw(st.integers(1, 5))):
        length = max(len(states[-1]), PAGE * draw(st.integers(1, 4)))
        new, pages = bytearray(states[-1].ljust(length, b"\0")), []
        for page, fill in draw(PAGES):
            at, data = page * PAGE, bytes([fill]) * PAGE
            if at < length:
                pages.append((at, data))
                new[at : at + PAGE] = data
        states.append(bytes(new))
        entries.append(log_entry(11 + number, length, pages))
    return states, entries


def hive_of(bins_data: bytes) -> bytes:
    empty = build_hive(Node())
    block = bytearray(empty[:PAGE])
    block[40:44] = len(bins_data).to_bytes(4, "little")
    return with_sequences(bytes(block) + bins_data, 11, 10)


@given(histories(), st.data())
@settings(deadline=None, max_examples=60)
def test_any_history_is_recovered_whole_from_two_logs(
    history: tuple[list[bytes], list[bytes]], data: st.DataObject
) -> None:
    states, entries = history
    split = data.draw(st.integers(0, len(entries)))
    hive = hive_of(states[0])
    first = new_log(entries[:split], sequence=11, like=hive)
    second = new_log(entries[split:], sequence=11 + split, like=hive)
    names = data.draw(st.permutations([".LOG1", ".LOG2"]))
    assert recovered(replay(hive, dict(zip(names, (first, second), strict=True)))) == states[-1]


@given(histories(), st.data())
@settings(deadline=None, max_examples=150)
def test_a_damaged_log_gives_a_state_that_was_or_none(
    history: tuple[list[bytes], list[bytes]], data: st.DataObject
) -> None:
    states, entries = history
    hive = hive_of(states[0])
    log = bytearray(new_log(entries, sequence=11, like=hive))
    for _ in range(data.draw(st.integers(0, 3))):
        log[data.draw(st.integers(512, len(log) - 1))] ^= data.draw(st.integers(1, 255))
    del log[data.draw(st.integers(0, len(log))) :]
    result = replay(hive, {".LOG1": bytes(log)})
    assert isinstance(result, str) or recovered(result) in states


@given(st.binary(max_size=700), st.dictionaries(st.sampled_from([".LOG", ".LOG1"]), st.binary()))
def test_any_bytes_are_answered(hive: bytes, logs: dict[str, bytes]) -> None:
    assert isinstance(replay(hive, logs), str)


@given(st.integers(0, 2), st.data())
@settings(deadline=None, max_examples=150)
def test_any_change_of_an_old_log_is_answered(flips: int, data: st.DataObject) -> None:
    log = bytearray(old_log(BEFORE, AFTER, sequence=12))
    for _ in range(flips):
        log[data.draw(st.integers(0, len(log) - 1))] ^= data.draw(st.integers(1, 255))
    del log[data.draw(st.integers(0, len(log))) :]
    result = replay(DIRTY, {".LOG": bytes(log)})
    assert isinstance(result, str | Replayed)
    assert isinstance(LogFile.parse(".LOG", bytes(log)).highest_sequence(), int)


def test_regipy_puts_the_pages_of_both_formats_in_the_same_places(tmp_path: Path) -> None:
    pages = list(changed_pages(BEFORE, AFTER))
    # regipy lets no hive grow, so it gets one that is as long as it will be.
    room = with_sequences(DIRTY.ljust(len(AFTER), b"\0"), 11, 10)
    block = bytearray(room[:512])
    block[40:44] = (len(AFTER) - PAGE).to_bytes(4, "little")
    hive = with_sequences(bytes(block) + room[512:], 11, 10)
    logs = {
        "new": new_log([log_entry(11, len(AFTER) - PAGE, pages)], sequence=11, like=AFTER),
        "old": old_log(hive, AFTER, sequence=12),
    }
    behind, log_file = tmp_path / "HIVE", tmp_path / "HIVE.LOG1"
    behind.write_bytes(hive)
    for name, log in logs.items():
        log_file.write_bytes(log)
        restored = replayed_by_regipy(behind, log_file, tmp_path / f"restored-{name}")
        assert restored.read_bytes()[PAGE:] == recovered(replay(hive, {".LOG1": log}))
