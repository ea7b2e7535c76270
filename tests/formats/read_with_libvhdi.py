"""Run by the distribution's Python: reads a chain with libvhdi and prints the SHA-256 of it.

Arguments: the files of the chain, the base last.
"""

import hashlib
import itertools
import sys

import pyvhdi

files = []
for name in sys.argv[1:]:
    file = pyvhdi.file()
    file.open(name)
    files.append(file)
for child, parent in itertools.pairwise(files):
    child.set_parent(parent)
digest = hashlib.sha256()
size = files[0].get_media_size()
for offset in range(0, size, 1 << 20):
    digest.update(files[0].read_buffer_at_offset(min(1 << 20, size - offset), offset))
sys.stdout.write(f"{size} {digest.hexdigest()}\n")
