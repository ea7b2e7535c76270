"""Makes the helpers beside the tests importable; other areas load `target_contract` by path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
