"""Azure on this machine: ARM as far as this product meets it, and machines that really run.

What it is: disks and snapshots by all rules of their documentation, behind Microsoft's own clients;
machines, security groups, long-running operations, permissions, sizes and quotas as the service
answers them; page blobs behind signed URLs and one container for jobs. Machines of an engine image
run their custom data as a process; machines that take a disk boot it under real firmware, and the
guest player acts as Windows would.

What it is not: no network between machines (it is declared and checked), no role assignments (the
knob ``denied`` takes single actions away), one resource group in one region, no resizing, no
performance. Disks, snapshots, groups and blobs outlive a restart; machines and interfaces do not.
"""
