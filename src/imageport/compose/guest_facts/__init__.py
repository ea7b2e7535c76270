"""What an inspection tells of a guest, one module a subject; nothing here changes anything."""
