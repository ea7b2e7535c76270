from __future__ import annotations

import inspect

import pytest

from imageport.cloud import Cloud
from imageport.clouds import registry
from imageport.clouds.registry import CLOUDS, cloud_class
from imageport.errors import InputError, MissingTool
from imageport.implementations import Implementation


@pytest.mark.parametrize("name", sorted(CLOUDS))
def test_every_registered_cloud_implements_the_whole_interface(name: str):
    found = cloud_class(name)
    assert issubclass(found, Cloud)
    assert not inspect.isabstract(found)
    assert found.name == name


def test_an_unknown_cloud_is_refused_with_the_known_names():
    with pytest.raises(InputError, match="needed one of aws, azure, gcp, memory"):
        cloud_class("nimbus")


def test_a_missing_client_library_is_named(monkeypatch: pytest.MonkeyPatch):
    entry = Implementation("imageport_no_such_cloud_library", "X", "nimbus-sdk")
    monkeypatch.setitem(registry.CLOUDS, "nimbus", entry)
    with pytest.raises(MissingTool) as caught:
        cloud_class("nimbus")
    assert "pip install nimbus-sdk" in caught.value.hint
