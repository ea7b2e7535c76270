"""A vCenter on this machine: govmomi's simulator, made as strict as vCenter where it matters.

What it is: inventory, sessions, tasks and property collector as the simulator has them. On top of
it, in ``vcsim/``, one file for each: snapshots that freeze their disks; export leases that end (by
time, with their session, with their snapshot) and whose manifest knows what was sent; disks sent
as stream-optimized VMDK, made from the very flat file that ranges are read from; the datastore for
sessions and tickets only; changed areas in slices; privileges that can be missing.

What it is not: no host of its own behind leases (their URLs lead back here), no other format of
datastore than a folder, no revert, no quiescing, no performance. Snapshots and what a guest wrote
after one end with the process.
"""
