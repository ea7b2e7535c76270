"""The embedded site: file server, clouds and machines on this computer, loopback only."""
