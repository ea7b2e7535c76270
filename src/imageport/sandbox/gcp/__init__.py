"""A Google Cloud project on this computer: object store, Compute Engine, tokens.

One process; disks and images are sparse files, machines really run. As strict as the references
say that Google is. The object store is cross-checked by an emulator that nobody here wrote; for
Compute Engine there is none, so that its face takes what the types of Google's client take.
"""
