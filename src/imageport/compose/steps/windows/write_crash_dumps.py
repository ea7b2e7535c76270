# References: Microsoft, Prepare a Windows VHD to upload to Azure (collecting dumps).
"""Crash dumps: what is left of a machine whose screen nobody sees."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step

_KERNEL_DUMP = 2


class WriteCrashDumps(Step):
    r"""Write a kernel dump to \Windows\MEMORY.DMP after a stop, also when the host asks for one."""

    name: ClassVar[str] = "crash_dumps"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("azure",)

    def run(self, context: Context) -> None:
        """Set the dump's kind and place, and NMICrashDump, in every control set.

        Dumps of programs are left alone: they hold users' data, on a disk that streams.
        """
        for control_set in context.registry.control_sets:
            path = f"{control_set}\\Control\\CrashControl"
            for name, value in (
                ("CrashDumpEnabled", Value.dword(_KERNEL_DUMP)),
                ("DumpFile", Value.expandable("%SystemRoot%\\MEMORY.DMP")),
                ("NMICrashDump", Value.dword(1)),
            ):
                context.recorder.set_value("SYSTEM", path, name, value)
