"""Hibernation: of no use in a cloud, and it leaves volumes that cannot be edited."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.hives.registry_value import Value
from imageport.compose.refusals import HIBERNATION_FILE, holds_session
from imageport.compose.step import Context, Step


class SwitchOffHibernation(Step):
    """Switch hibernation and fast startup off, and drop the file that they would use."""

    name: ClassVar[str] = "hibernation_off"
    tier: ClassVar[Tier] = Tier.RECOMMENDED

    def run(self, context: Context) -> None:
        """Set both switches to 0 in every control set; remove a file that holds no session.

        It has gigabytes, which every copy of the image would carry for nothing.
        """
        off = Value.dword(0)
        for control_set in context.registry.control_sets:
            control = f"{control_set}\\Control"
            context.recorder.set_value("SYSTEM", f"{control}\\Power", "HibernateEnabled", off)
            session = f"{control}\\Session Manager\\Power"
            context.recorder.set_value("SYSTEM", session, "HiberbootEnabled", off)
        if not holds_session(context.files):
            context.recorder.remove(HIBERNATION_FILE)
