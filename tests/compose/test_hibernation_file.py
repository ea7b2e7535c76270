"""With hibernation off its file goes too, unless a session waits in it."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.refusals import HIBERNATION_FILE, volume_refusals

OFF = EngineOptions(rearm="off", recommended=("hibernation_off",))


@pytest.mark.parametrize(
    ("content", "options", "is_left"),
    [
        (bytes(8192), OFF, False),
        (b"", OFF, False),
        (b"hibr" + bytes(8188), OFF, True),
        (b"HIBR" + bytes(8188), OFF, True),
        (bytes(8192), EngineOptions(rearm="off"), True),
    ],
)
def test_a_hibernation_file_that_holds_no_session_goes_when_asked_for(
    guest: Any, content: bytes, options: EngineOptions, is_left: bool
) -> None:
    (guest.windows.root / HIBERNATION_FILE).write_bytes(content)
    changes = [c for c in guest.compose(options) if HIBERNATION_FILE in c.path]
    assert guest.windows.exists(HIBERNATION_FILE) == is_left
    assert [c.step for c in changes] == ([] if is_left else ["hibernation_off"])


def test_without_the_file_there_is_nothing_to_remove_or_refuse(guest: Any) -> None:
    assert not guest.windows.exists(HIBERNATION_FILE)
    assert not [c for c in guest.compose(OFF) if c.kind == "file" and c.step == "hibernation_off"]
    codes = [one.code for one in volume_refusals(guest.windows)]
    assert "hibernated" not in codes
