"""What a new file takes from its folder, by the rules of the documents."""

from __future__ import annotations

from imageport.sandbox.guest_player.descriptors import entries, inherited
from tests.sandbox.guest_player.ready_windows import administrators_only


def test_a_file_takes_the_entries_of_its_folder_and_hands_nothing_on():
    child = inherited(administrators_only((0x1200A9, "S-1-5-32-545")), folder=False)
    assert [(entry.who, entry.flags) for entry in entries(child)] == [
        ("S-1-5-18", 0x10),
        ("S-1-5-32-544", 0x10),
        ("S-1-5-32-545", 0x10),
    ]


def test_a_folder_hands_on_what_it_takes():
    child = inherited(administrators_only(), folder=True)
    assert {entry.flags for entry in entries(child)} == {0x13}


def test_reading_is_no_way_to_change_something():
    readable, full = entries(
        administrators_only((0x1200A9, "S-1-5-32-545"), (0x1F01FF, "S-1-1-0"))
    )[2:]
    assert not readable.may_write
    assert full.may_write


def test_no_access_list_means_everybody():
    (entry,) = entries(bytes(20))
    assert (entry.who, entry.may_write) == ("S-1-1-0", True)
