"""vCenter Server, or one ESXi host by itself."""
