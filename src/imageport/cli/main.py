"""Entry point of ``imageport``: one table of subcommands, one place that prints errors.

Exit codes: 0 done · 1 failed · 2 wrong usage or input · 3 the image was refused or its verdict
failed · 4 failed in a way that trying again may mend · 130 interrupted or told to end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType

from imageport import __version__
from imageport.errors import (
    FirstBootFailed,
    GuestRefused,
    ImageportError,
    InputError,
    VerdictFailed,
)

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("imageport.cli.demo", "run the main job end to end on the embedded site"),
    "sandbox": ("imageport.cli.sandbox", "start, stop or show the embedded site"),
    "inspect": ("imageport.cli.inspect", "show what a disk is and what it holds"),
    "convert": ("imageport.cli.convert", "copy any readable disk to a new file"),
    "prepare": ("imageport.cli.prepare", "compose a new copy of a disk at the site"),
    "images": ("imageport.cli.images", "list the catalogue"),
    "sweep": ("imageport.cli.sweep", "delete what expired runs left in the cloud"),
    "doctor": ("imageport.cli.doctor", "check what is installed, reachable and permitted"),
    "engine": ("imageport.cli.engine", "build the compositing engine"),
}


_LOG_LINES = 20


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    parser, modules = _parser(argv)
    args = parser.parse_args(argv)
    try:
        with _unwound_by_signals():
            return int(modules[args.command].run(args))
    except ImageportError as error:
        _print_error(error, as_json=getattr(args, "json", False))
        return _exit_code(error)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; nothing is left running.\n")
        return 130


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Make SIGTERM and a closed terminal act as Ctrl-C: engines and services must not outlive us.

    Only the first one counts, so that a second does not cut the clean-up short.
    """
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it ignored
                earlier[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser(argv: list[str]) -> tuple[argparse.ArgumentParser, dict[str, ModuleType]]:
    """Build the parser; only the named subcommand's module is imported, so that help is quick."""
    parser = argparse.ArgumentParser(
        prog="imageport",
        description="Moves golden Windows images from on-premises to the cloud.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 image refused, "
        "4 failed but may be tried again, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"imageport {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((word for word in argv if word in COMMANDS), "")
    modules: dict[str, ModuleType] = {}
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == named:
            modules[name] = importlib.import_module(module_name)
            modules[name].add_arguments(command)
    return parser, modules


def _print_error(error: ImageportError, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": error.as_dict()}) + "\n")
        return
    sys.stderr.write(f"imageport: {error.message} [{error.code}]\n")
    for refusal in error.fields.get("refusals", []):
        sys.stderr.write(f"  - {refusal}\n")
    for line in str(error.fields.get("log", "")).splitlines()[-_LOG_LINES:]:
        sys.stderr.write(f"  | {line}\n")
    if error.hint:
        sys.stderr.write(f"  Hint: {error.hint}\n")


def _exit_code(error: ImageportError) -> int:
    if isinstance(error, InputError):
        return 2
    if isinstance(error, (GuestRefused, VerdictFailed, FirstBootFailed)):
        return 3
    return 4 if error.retryable else 1
