"""The one hypervisor behind every emulated cloud: disks as sparse files, machines as processes."""
