"""Byte-range files and folders: local, SMB and in memory behind one interface."""
