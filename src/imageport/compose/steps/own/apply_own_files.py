"""The operator's own changes while the image is offline: registry texts and lists of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from imageport.compose.contract import EngineOptions, OwnPoint, OwnStep, Refusal, Tier
from imageport.compose.hives.registry import Registry
from imageport.compose.own_steps.file_list import FileList, parse_file_list
from imageport.compose.own_steps.payload_files import (
    added_files,
    ending_of,
    option_problems,
    read_text,
)
from imageport.compose.own_steps.registry_text import CURRENT, RegistryEdit, parse_registry_text
from imageport.compose.recorder import Recorder
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import InputError


class OwnStepsBefore(Step):
    """Make the operator's own changes before all others."""

    name: ClassVar[str] = "own_steps_before"
    tier: ClassVar[Tier] = Tier.REQUIRED
    options: ClassVar[tuple[str, ...]] = ("own_steps",)
    point: ClassVar[OwnPoint] = OwnPoint.OFFLINE_BEFORE

    def is_chosen(self, options: EngineOptions) -> bool:
        """Say whether the option names a step for this point."""
        return bool(own_steps(options, self.point))

    def problems(self, options: EngineOptions) -> list[str]:
        """Check the whole option, for all points at once."""
        return option_problems(options.own_steps)

    def reason(self, facts: Facts) -> str:
        """Name the files."""
        return "asked for: " + ", ".join(s.path for s in own_steps(facts.options, self.point))

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Read every file whole, so that all that is wrong is said before anything is changed."""
        found = []
        for step in own_steps(facts.options, self.point):
            try:
                found += [own_refusal(step, problem) for problem in _problems(facts, step)]
            except InputError as error:
                found.append(own_refusal(step, error.message))
        return found

    def run(self, context: Context) -> None:
        """Make the changes, each under its own file's name."""
        for step in own_steps(context.options, self.point):
            context.recorder.begin(f"{self.name} {step.path}", self.tier)
            data = read_text(context.payload, step.path)
            if ending_of(step) == ".reg":
                _edit(context.recorder, parse_registry_text(data))
            else:
                files = parse_file_list(data)
                sources = _sources(context.payload, files)
                _change_files(context.recorder, context.files, files, sources)


class OwnStepsAfter(OwnStepsBefore):
    """Make the operator's own changes after all others."""

    name: ClassVar[str] = "own_steps_after"
    point: ClassVar[OwnPoint] = OwnPoint.OFFLINE_AFTER

    def problems(self, options: EngineOptions) -> list[str]:
        """Nothing more: `OwnStepsBefore` has checked the whole option."""
        del options
        return []


def own_steps(options: EngineOptions, point: OwnPoint) -> list[OwnStep]:
    """Return the operator's steps for one point, in his order."""
    return [step for step in options.own_steps if step.point == point]


def own_refusal(step: OwnStep, cause: str) -> Refusal:
    """Return the refusal that names the step's file."""
    return refusal("own_step", f"Own step '{step.path}': {cause}")


def _problems(facts: Facts, step: OwnStep) -> Iterator[str]:
    data = read_text(facts.payload, step.path)
    if ending_of(step) == ".reg":
        yield from _missing_sets(facts.registry, parse_registry_text(data))
    else:
        files = parse_file_list(data)
        _sources(facts.payload, files)
        yield from _misplaced(facts.files, files)


def _missing_sets(registry: Registry, edits: tuple[RegistryEdit, ...]) -> Iterator[str]:
    known = {CURRENT.lower(), *(name.lower() for name in registry.control_sets)}
    for edit in edits:
        first = edit.key.partition("\\")[0].lower()
        if edit.hive == "SYSTEM" and "controlset" in first and first not in known:
            yield f"line {edit.line}: this guest has no such control set."


def _misplaced(files: GuestFiles, wanted: FileList) -> Iterator[str]:
    for addition in wanted.additions:
        parts = addition.path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(files.exists(folder) and not files.is_folder(folder) for folder in above):
            yield f"'{addition.path}' lies below a file."
        if files.is_folder(addition.path):
            yield f"'{addition.path}' is a folder in this guest."


def _sources(payload: Path | None, files: FileList) -> dict[str, Path]:
    return added_files(payload, [addition.source for addition in files.additions])


def _edit(recorder: Recorder, edits: tuple[RegistryEdit, ...]) -> None:
    for edit in edits:
        first, _, rest = edit.key.partition("\\")
        keys = [edit.key]
        if edit.hive == "SYSTEM" and first.lower() == CURRENT.lower():
            keys = [f"{name}\\{rest}".rstrip("\\") for name in recorder.registry.control_sets]
        for key in keys:
            _edit_key(recorder, edit, key)


def _edit_key(recorder: Recorder, edit: RegistryEdit, key: str) -> None:
    if edit.name is None:
        change = recorder.delete_key if edit.deletes else recorder.add_key
        change(edit.hive, key)
    elif edit.value is None:
        recorder.delete_value(edit.hive, key, edit.name)
    else:
        recorder.set_value(edit.hive, key, edit.name, edit.value)


def _change_files(
    recorder: Recorder, files: GuestFiles, wanted: FileList, sources: dict[str, Path]
) -> None:
    for path in wanted.removals:
        recorder.remove(path)
    for addition in wanted.additions:
        content = sources[addition.source]
        if files.exists(addition.path):
            recorder.replace_file(addition.path, content)
            continue
        folder = addition.path.rpartition("/")[0]
        if folder:
            recorder.ensure_folder(folder, addition.access)
        recorder.add_file(addition.path, content, addition.access)
