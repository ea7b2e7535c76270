"""What all parts of the emulated project share; one per process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from imageport.sandbox.gcp.call_record import CallRecord
from imageport.sandbox.gcp.gcs_store import ObjectStore
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.gcp.token_store import TokenStore
from imageport.sandbox.machines.hypervisor import Hypervisor


class Emulator:
    """Objects, tokens, machines, delays and faults behind all faces."""

    def __init__(self, root: Path, knobs: Knobs) -> None:
        self.root = root
        self.knobs = knobs
        self.lock = threading.RLock()
        self.calls = CallRecord()
        self.tokens = TokenStore(root / "keys", self.now)
        self.objects = ObjectStore(root / "objects")
        """Everything in the bucket: `ObjectStore.get`, `ObjectStore.open`."""
        self.hypervisor = Hypervisor(root / "machines", knobs, "gcp")
        self.endpoint = ""
        """Where the process answers, once it does."""

    def close(self) -> None:
        """End all machines and let go of all files; may be called twice."""
        self.hypervisor.stop_all()
        self.objects.close()

    def now(self) -> float:
        """Return Google's time, in seconds since 1970: behind that of clients by the skew."""
        return time.time() - self.knobs.clock_skew_seconds
