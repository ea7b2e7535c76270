"""Steps on the way from firmware to the Windows kernel."""
