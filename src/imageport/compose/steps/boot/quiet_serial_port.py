# References: Microsoft, bcdedit /ems, /bootems, /emssettings. Google's importer does the same, for
# images made on Azure come with EMS on COM1.
"""Emergency management services (EMS): off while the image is prepared, then as asked."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose import boot_store
from imageport.compose.boot_store import Element
from imageport.compose.contract import EngineOptions, Tier
from imageport.compose.first_boot.plan import SET_EMS
from imageport.compose.hives.registry import BOOT_STORE_HIVE
from imageport.compose.step import Context, Facts, Step

KEEP, ON, OFF = "keep", "on", "off"
"""What the option ``serial_console`` may be."""
AS_IT_IS = "keep"
"""The port of a plan step that restores one switch."""
_SWITCH_WORDS = {Element.EMS: "ems", Element.BOOT_EMS: "bootems"}
_DATA = "Element"
"""The value of an element's key."""
_SECOND_PORT = ("gcp",)
"""Google shows COM1 as a log only and takes its interactive console to COM2."""


def console_port(cloud: str) -> int:
    """Return the number of the serial port that a cloud's console talks to."""
    return 2 if cloud in _SECOND_PORT else 1


def switch_word(identifier: str, element: Element) -> str:
    """Return the word by which a first-boot plan names one switch."""
    return f"{_SWITCH_WORDS[element]}:{identifier.strip('{}')}"


class QuietSerialPort(Step):
    """Keep EMS off while preparing, for first boot reports on the serial port that it takes."""

    name: ClassVar[str] = "quiet_serial_port"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("serial-port",)
    options: ClassVar[tuple[str, ...]] = ("serial_console",)

    def reason(self, facts: Facts) -> str:
        """Say how many switches are on."""
        store = facts.registry.hives.get(BOOT_STORE_HIVE)
        count = len(boot_store.ems_switches(store)) if store else 0
        return f"EMS is on by {count} switches of the boot store" if count else ""

    def run(self, context: Context) -> None:
        """Switch EMS off wherever it is on; to keep it, first boot puts each switch back."""
        store = context.registry.hives[BOOT_STORE_HIVE]
        for identifier, element in boot_store.ems_switches(store):
            off = boot_store.flag(on=False)
            context.remember(BOOT_STORE_HIVE, boot_store.element_path(identifier, element), _DATA)
            boot_store.set_element(context.recorder, identifier, element, off)
            if context.options.serial_console == KEEP:
                word = switch_word(identifier, element)
                context.plan.add(SET_EMS, "on", AS_IT_IS, word)


class SerialConsole(Step):
    """Switch EMS on at the end of first boot: a console on the serial port, without a sign-in."""

    name: ClassVar[str] = "serial_console"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    needs: ClassVar[tuple[str, ...]] = ("serial-port",)
    options: ClassVar[tuple[str, ...]] = ("serial_console",)

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option asks for it: it is chosen by that, not by its name."""
        return options.serial_console == ON

    def problems(self, options: EngineOptions) -> list[str]:
        """Check the option."""
        if options.serial_console in {KEEP, ON, OFF}:
            return []
        return [f"serial_console: '{options.serial_console}' is not keep, on or off"]

    def run(self, context: Context) -> None:
        """Let first boot do it, last of all: until then the port is its own."""
        context.plan.add(SET_EMS, "on", str(console_port(context.options.cloud)))
