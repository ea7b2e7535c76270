"""The disk's partitions and the files on its volumes."""
