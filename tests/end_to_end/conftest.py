"""One laboratory for each module of long stories."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.laboratory import Laboratory, open_laboratory


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with open_laboratory(tmp_path_factory.mktemp("laboratory")) as opened:
        yield opened
