"""The machine of the one boot: watched until its guest shuts it down, in every cloud alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from imageport.cloud import BootOutcome, Cancelled
from imageport.clouds.boot_console import BootConsole
from imageport.clouds.waiting import wait_until
from imageport.errors import CloudError
from imageport.progress import Stage

Facts = TypeVar("Facts")


class BootedMachine(ABC, Generic[Facts]):
    """What a cloud tells of the machine that boots the disk."""

    @abstractmethod
    def over(self) -> Facts | None:
        """Return how the machine is once it is off or gone; None while it may still run.

        Asked again after a `CloudError` that may pass.
        """

    @abstractmethod
    def ended_from_outside(self, facts: Facts) -> str:
        """Return who or what ended it in one phrase; "" when its guest shut down."""

    @abstractmethod
    def console_text(self) -> str:
        """Return what the machine wrote to its serial console so far."""

    @abstractmethod
    def screenshot(self) -> str:
        """Save what its screen shows; return in one phrase where that lies or why it does not."""

    def await_shutdown(
        self,
        deadline_seconds: float,
        stage: Stage,
        cancelled: Cancelled,
        pulse: Callable[[], None],
    ) -> BootOutcome:
        """Wait for the end and say how it came to that; the machine itself is left as it is.

        Raises:
            CloudError: one that will not pass.
            TransferCancelled: ``cancelled`` said so.
        """
        console = BootConsole(self.console_text, stage)
        started = time.monotonic()

        def check() -> Facts | None:
            facts = self.over()
            if facts is None:
                console.poll()
            return facts

        facts = wait_until(check, deadline_seconds, cancelled=cancelled, pulse=pulse)
        seconds = time.monotonic() - started
        console.poll(force=True)
        if facts is None:
            reason = f"still running after {deadline_seconds:.0f} s; {self._screenshot()}"
        else:
            reason = self.ended_from_outside(facts)
        return BootOutcome(not reason, seconds, console.text, reason)

    def _screenshot(self) -> str:
        try:
            return self.screenshot()
        except CloudError as error:
            return f"no screenshot ({error.code})"  # evidence, not a condition
