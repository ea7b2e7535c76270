"""Implementations of `imageport.hypervisor.Hypervisor`."""
