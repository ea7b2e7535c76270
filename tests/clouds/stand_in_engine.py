"""A stand-in for the compositing engine: a real zipapp that acts as its job's options say."""

from __future__ import annotations

import hashlib
import zipapp
from pathlib import Path

from imageport.compose.build_engine import BuiltEngine

MAIN = """
import json, sys, time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
mode = (job["options"]["recommended"] or ["work"])[0]
print("stand-in engine:", mode, flush=True)
payload = Path(sys.argv[4]) if "--payload" in sys.argv else None
if mode == "crash":
    sys.exit("no device today")
if mode == "hang":
    time.sleep(600)
if mode == "slow":
    time.sleep(3)
with open(job["disk"]["path"], "r+b") as disk:
    first = disk.read(16).hex()
    if job["action"] == "compose":
        disk.seek(512)
        disk.write(b"composed")
report = {
    "schema": 1, "action": job["action"], "ok": True, "engine_id": "stand-in",
    "first_boot": {
        "first_bytes": first,
        "payload": ",".join(sorted(p.name for p in payload.iterdir())) if payload else "",
    },
}
if mode == "nonsense":
    report = {"schema": 1, "surprise": True}
Path(sys.argv[2]).write_text(json.dumps(report))
"""


def build_stand_in(path: Path) -> BuiltEngine:
    """Build it as `imageport.compose.build_engine.build_engine` builds the real one."""
    return build_of(MAIN, path)


def build_of(main: str, path: Path) -> BuiltEngine:
    """Build an engine that is one program."""
    source = path.parent / "stand-in"
    source.mkdir()
    (source / "__main__.py").write_text(main)
    zipapp.create_archive(source, path)
    return BuiltEngine(path, hashlib.sha256(path.read_bytes()).hexdigest(), "stand-in")
