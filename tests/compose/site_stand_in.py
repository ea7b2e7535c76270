"""A stand-in for the engine at the site: a real zipapp that writes over NBD with QEMU's tool.

It does in a second what the real one does in half a minute: its own process opens the served disk
and writes to it. How it acts is in the job's options, as the first recommended step, or in the
variable STAND_IN_MODE.
"""

from __future__ import annotations

from pathlib import Path

from imageport.compose.build_engine import BuiltEngine
from tests.clouds.stand_in_engine import build_of

MAIN = """
import json, os, subprocess, sys, time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
mode = (job["options"]["recommended"] or [os.environ.get("STAND_IN_MODE", "work")])[0]
print("imageport-engine: stand-in", mode, file=sys.stderr, flush=True)

def on_disk(*commands):
    words = [word for command in commands for word in ("-c", command)]
    way = [] if job["action"] == "compose" else ["-r"]
    return subprocess.run(["qemu-io", "-f", "raw", *way, *words, job["disk"]["path"]]).returncode

report = {"schema": 1, "action": job["action"], "ok": True, "engine_id": "stand-in"}
if mode == "deaf":  # does not hear that its writes failed, and never ends
    on_disk("write -P 7 1M 1M")
    time.sleep(600)
if job["action"] == "compose":
    report["changes"] = [{"step": "stand_in", "tier": "required", "kind": "disk", "path": "x"}]
    if on_disk("write -P 7 64k 512", "write -z 1M 64k", "flush"):
        report = {**report, "ok": False, "error": "Input/output error"}
else:
    on_disk("read 0 1M")
if mode == "unready" and job["action"] == "compose":
    item = {"name": "boot_drivers", "passed": False, "evidence": "nvme: Start=3"}
    report = {**report, "ok": False, "verdict": [item]}
if mode == "refused":
    said = {"code": "hibernated", "reason": "A session waits.", "hint": "Shut it down."}
    report = {**report, "ok": False, "changes": [], "refusals": [said]}
Path(sys.argv[2]).write_text(json.dumps(report))
"""


def build_stand_in(path: Path) -> BuiltEngine:
    """Build it as `imageport.compose.build_engine.build_engine` builds the real one."""
    return build_of(MAIN, path)
