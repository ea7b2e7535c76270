from __future__ import annotations

import inspect

import pytest

from imageport.errors import InputError, MissingTool
from imageport.hypervisor import Hypervisor
from imageport.hypervisors import registry
from imageport.hypervisors.registry import HYPERVISORS, hypervisor_class
from imageport.implementations import Implementation


@pytest.mark.parametrize("name", sorted(HYPERVISORS))
def test_every_registered_hypervisor_implements_the_whole_interface(name: str):
    found = hypervisor_class(name)
    assert issubclass(found, Hypervisor)
    assert not inspect.isabstract(found)
    assert found.name == name


def test_an_unknown_hypervisor_is_refused_with_the_known_names():
    with pytest.raises(InputError, match="needed one of memory, vsphere, xenserver"):
        hypervisor_class("bochs")


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch):
    entry = Implementation("imageport_no_such_client", "X", "bochs-sdk")
    monkeypatch.setitem(registry.HYPERVISORS, "bochs", entry)
    with pytest.raises(MissingTool) as caught:
        hypervisor_class("bochs")
    assert "pip install bochs-sdk" in caught.value.hint
