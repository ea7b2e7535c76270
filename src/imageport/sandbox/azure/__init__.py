"""Azure on this machine: ARM, managed disks, blobs, and machines that really run."""
