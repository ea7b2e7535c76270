"""What first boot left behind: ``result.txt``, ``attempts.txt`` and the end of the logs.

Written by the guest, so read with bounds and believed only as far as it is well-formed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.volumes.guest_files import GuestFiles

_MAX_RESULT_BYTES = 64 * 1024
_LOG_TAIL_CHARACTERS = 4000
_MAX_LOG_BYTES = 4 * 1024 * 1024
_LINE = re.compile(r"(state|reason|attempts|restarts|step\.\d{2})=([ -~]{0,200})")


@dataclass(frozen=True, slots=True)
class FirstBootResult:
    """``state`` is ``done``, ``failed``, ``unfinished`` (it began) or ``not-run``."""

    state: str
    attempts: str = ""
    restarts: str = ""
    reason: str = ""
    """Why it failed: ``step-NN``, ``attempts``, ``restarts`` or ``deadline in step NN VERB``."""
    steps: dict[str, str] = field(default_factory=dict)
    log_tail: str = ""

    def facts(self) -> dict[str, str]:
        """Return the facts for the report."""
        named = {f"step.{number}": outcome for number, outcome in sorted(self.steps.items())}
        return {
            "state": self.state,
            "attempts": self.attempts,
            "restarts": self.restarts,
            "reason": self.reason,
            **named,
            "log": self.log_tail,
        }


def read_first_boot(files: GuestFiles) -> FirstBootResult:
    """Read what there is; nothing there is a result too."""
    logs = [_text(files, name, _MAX_LOG_BYTES) for name in ("log.txt", "watch.txt")]
    log = "".join(logs)[-_LOG_TAIL_CHARACTERS:]
    attempts = _text(files, "attempts.txt", 16).strip()
    result = _text(files, "result.txt", _MAX_RESULT_BYTES)
    matches = [_LINE.fullmatch(line.strip()) for line in result.splitlines()]
    facts: dict[str, str] = {}
    for name, text in (match.groups() for match in matches if match):
        # What a step says twice, in spite of the script, is as bad as the worst of it.
        if facts.get(name, "ok") == "ok" or not name.startswith("step."):
            facts[name] = text
    state = facts.get("state", "")
    if state not in {"done", "failed"}:
        state = "unfinished" if log or attempts or result else "not-run"
    steps: dict[str, str] = {}
    for name, outcome in facts.items():
        if name.startswith("step."):
            steps[name.removeprefix("step.")] = outcome
    told = facts.get("attempts", attempts), facts.get("restarts", ""), facts.get("reason", "")
    return FirstBootResult(state, *told, steps, log)


def _text(files: GuestFiles, name: str, limit_bytes: int) -> str:
    path = f"{FOLDER}/{name}"
    if not files.exists(path):
        return ""
    # Windows programs write the console's code page; every byte is shown as something.
    return files.read(path, limit_bytes).decode("cp437", "replace")
