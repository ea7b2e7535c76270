"""A command that is told to end unwinds: what it started does not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = """
import signal, subprocess, sys, time, types
from pathlib import Path
from imageport.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def run(args):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        Path(sys.argv[1]).write_text(str(child.pid))
        time.sleep(60)
    finally:
        time.sleep(0.5)
        child.kill()
        child.wait()
    return 0

sys.modules["stand_in"] = types.SimpleNamespace(run=run, add_arguments=lambda parser: None)
main.COMMANDS["wait"] = ("stand_in", "wait")
sys.exit(main.main(["wait"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_told_to_end_ends_what_it_started(tmp_path: Path, number: int):
    note = tmp_path / "child"
    process = subprocess.Popen([sys.executable, "-c", COMMAND, note], stderr=subprocess.PIPE)
    child = _child(note, process)
    process.send_signal(number)
    if number != signal.SIGINT:
        time.sleep(0.2)
        process.send_signal(number)  # an impatient second one must not cut the clean-up short
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"nothing is left running" in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def _child(note: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 30
    while not (note.exists() and note.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(note.read_text())
