"""What ``bcdedit`` does to emergency management services (EMS) in a boot store.

References: Microsoft, BCD element types; bcdedit /ems, /bootems, /emssettings.
"""

from __future__ import annotations

import re
import struct

from imageport.sandbox.guest_player.registry import BINARY, Hive, text

_BOOT_MANAGER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
_EMS_SETTINGS = "{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}"
_DEFAULT_OBJECT = "23000003"
_SWITCHES = {"ems": "260000b0", "bootems": "16000020"}
_PORT, _BAUD = "15000022", "15000023"
_BAUD_RATE = 115200
_WHOLE = re.compile(r"(on|off) ([1-4])")
_ONE = re.compile(r"(on|off) keep (ems|bootems):([0-9a-f-]{36})", re.IGNORECASE)


class BootSwitches:
    """The boot store of one machine."""

    def __init__(self, store: Hive) -> None:
        self._store = store

    def set_ems(self, argument: str) -> str:
        """Set ``on|off PORT`` or ``on|off keep SWITCH:OBJECT``; returns what is wrong, or ""."""
        one, whole = _ONE.fullmatch(argument), _WHOLE.fullmatch(argument)
        if one is not None:
            state, switch, identifier = one.groups()
            return self._flag(f"{{{identifier}}}", _SWITCHES[switch.lower()], state)
        if whole is None:
            return f"cannot read '{argument}'"
        state, port = whole.groups()
        key = self._store.key(f"Objects\\{_BOOT_MANAGER}\\Elements\\{_DEFAULT_OBJECT}")
        default = text(key, "Element")
        self._number(_EMS_SETTINGS, _PORT, int(port))
        self._number(_EMS_SETTINGS, _BAUD, _BAUD_RATE)
        fault = self._flag(default, _SWITCHES["ems"], state)
        return fault or self._flag(_BOOT_MANAGER, _SWITCHES["bootems"], state)

    def _flag(self, identifier: str, element: str, state: str) -> str:
        if self._store.key(f"Objects\\{identifier}") is None:
            return f"the boot store has no object {identifier}"
        value = BINARY, b"\1" if state.lower() == "on" else b"\0"
        self._store.set(f"Objects\\{identifier}\\Elements\\{element}", {"Element": value})
        return ""

    def _number(self, identifier: str, element: str, number: int) -> None:
        value = BINARY, struct.pack("<Q", number)
        self._store.set(f"Objects\\{identifier}\\Elements\\{element}", {"Element": value})
