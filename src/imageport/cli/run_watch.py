"""Watches a flow run over Prefect's REST API: its progress artifacts and log lines, stage by stage.

What it shows comes from the same artifacts that the UI shows; nothing is known to it alone.
"""

from __future__ import annotations

import re
import time
from typing import Any

from imageport import errors
from imageport.cli.progress_lines import ProgressLines
from imageport.errors import CloudUnavailable, EngineFailed, ImageportError
from imageport.sandbox.prefect_api import PrefectApi, RunState

POLL_SECONDS = 1.0
_STAGE_LINE = re.compile(
    # In a run for several targets each line names its own: ``[aws/eu-central-1/site]``.
    r"^(?P<stage>[a-z][a-z-]{2,14}): (?P<target>\[(?P<cloud>[a-z]+)[^\]]*\] )?(?P<text>.+)$",
    re.DOTALL,
)
_AMOUNT = re.compile(r"started|\d+( of \d+)? \w+(, \d+ MiB/s)?(, \d+ s left)?")
_CODE = re.compile(r"\[(?P<code>[a-z]+(?:-[a-z]+)*)\]")
_LONG_ID = re.compile(
    r"(?:/subscriptions/[^\s'\"]*|\bprojects/[^\s'\"/]+/(?:global|zones/[^\s'\"/]+)/[a-z]+)"
    r"/([A-Za-z0-9._()-]*[A-Za-z0-9_])"
)
LATE_RECORDS = 200
"""How many of the newest records an older one may still come before: what some seconds bring."""
_WARNING = 30
_INFO = 20


class RunWatch:
    """One run with the runs that it starts on other work pools."""

    def __init__(self, api: PrefectApi, run_id: str, lines: ProgressLines) -> None:
        self._api = api
        self._run_id = run_id
        self._lines = lines
        self._shown: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._records: set[str] = set()
        self._children: dict[str, str] = {}

    def until_ended(self, timeout_seconds: float) -> RunState:
        """Show what happens until the run ended; `CloudUnavailable` if it does not in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            state = self._api.state(self._run_id)
            self._children = self._api.child_runs(self._run_id)
            runs = [self._run_id, *self._children]
            self._show_logs(runs)
            if state.is_terminal:
                return state
            self._show_progress(runs)
            if time.monotonic() > deadline:
                raise CloudUnavailable(
                    f"Cannot await run '{self._run_id}': still {state.name} after "
                    f"{timeout_seconds:.0f} s."
                )
            time.sleep(POLL_SECONDS)

    def _show_progress(self, runs: list[str]) -> None:
        """Show amounts from the artifacts; each is rewritten by the next."""
        for artifact in self._api.artifacts(runs):
            text = str(artifact.get("description") or "")
            found = _STAGE_LINE.match(text)
            if artifact.get("type") != "progress" or artifact.get("data") == 100.0 or not found:
                continue
            if _AMOUNT.fullmatch(found["text"]) and self._shown.get(artifact["key"]) != text:
                self._shown[artifact["key"]] = text
                self._lines.say(found["stage"], self._of_target(artifact, found), keep=False)

    def _show_logs(self, runs: list[str]) -> None:
        """Show what stages say in the runs' logs; these lines stay.

        Runs send their records late, each in its own time: the last ones are looked at again.
        """
        offset = max(0, len(self._records) - LATE_RECORDS)
        while records := self._api.logs(runs, offset=offset):
            offset += len(records)
            for record in records:
                if record["id"] not in self._records:
                    self._records.add(record["id"])
                    self._show_record(record)

    def _show_record(self, record: dict[str, Any]) -> None:
        found = _STAGE_LINE.match(str(record["message"]))
        if record["level"] == _WARNING:
            self._lines.say("warning", short(str(record["message"]).splitlines()[0]))
        elif record["level"] == _INFO and found and not _AMOUNT.fullmatch(found["text"]):
            self._say_once(record, found)

    def _say_once(self, record: dict[str, Any], found: re.Match[str]) -> None:
        """Show a sentence; a stage that stands still repeats its last one in the log."""
        text = self._of_target(record, found)
        whose = f"{found['stage']} {found['target']} {record.get('flow_run_id')}"
        if self._said.get(whose) != text:
            self._said[whose] = text
            self._lines.say(found["stage"], short(text))

    def _of_target(self, item: dict[str, Any], found: re.Match[str]) -> str:
        """Return what a line says, with the target it is of where there are several."""
        if found["target"]:
            return f"{found['cloud']}: {found['text']}"
        name = self._children.get(str(item.get("flow_run_id")), "")
        return f"{name}: {found['text']}" if name and len(self._children) > 1 else found["text"]


def short(text: str) -> str:
    """Return a line with Azure's and Google's ids cut to their names: 200 letters say no more."""
    return _LONG_ID.sub(r"\1", text)


def error_of(state: RunState, logs: list[dict[str, Any]]) -> ImageportError:
    """Return how a run failed as the error that its task raised, as far as its text tells."""
    texts = [state.message, *(str(item["message"]) for item in reversed(logs))]
    for text in texts:
        for found in _CODE.finditer(text):
            kind = _BY_CODE.get(found["code"])
            if kind is not None:
                before = text[: found.start()].strip().splitlines()[-1]
                message = re.sub(r"^.*?\b(?=Cannot |Bad )", "", before)
                hint = text[found.end() :].partition("Hint: ")[2].splitlines()
                return kind(message, hint=hint[0] if hint else "")
    return EngineFailed(f"Cannot finish the run: it ended as {state.name}: {state.message}")


def _classes(kind: type[ImageportError]) -> list[type[ImageportError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in _classes(child))]


_BY_CODE = {kind.code: kind for kind in _classes(errors.ImageportError)}
