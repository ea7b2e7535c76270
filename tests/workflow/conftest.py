from __future__ import annotations

import pytest

from tests.workflow.small_site import SmallSite


@pytest.fixture
def site() -> SmallSite:
    made = SmallSite()
    made.write_vdisk(1, 2, 0, 3)
    return made
