"""``python -m imageport`` is ``imageport``."""

import sys

from imageport.cli.main import main

sys.exit(main())
