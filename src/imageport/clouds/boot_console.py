"""The console of the machine that boots once: evidence of how far Windows came."""

from __future__ import annotations

import time
from collections.abc import Callable

from imageport.errors import CloudError
from imageport.progress import Stage

PAUSE_SECONDS = 15.0
"""Between two looks: consoles are shown with a delay of minutes at best, and asking is limited."""
SHOWN_CHARACTERS = 200


class BootConsole:
    """The last text seen; a cloud drops it when the machine is gone.

    Args:
        read: Asks the cloud for the text so far.
        stage: Is told the last line whenever there is more.
    """

    def __init__(self, read: Callable[[], str], stage: Stage) -> None:
        self.text = ""
        self._read = read
        self._stage = stage
        self._next = 0.0

    def poll(self, *, force: bool = False) -> None:
        """Look, unless that was done just now."""
        if not force and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PAUSE_SECONDS
        try:
            text = self._read()
        except CloudError:
            return  # the console is evidence, not a condition
        if text.strip() and text != self.text:
            self.text = text
            self._stage.note(f"console: {text.strip().splitlines()[-1][:SHOWN_CHARACTERS]}")
