"""What outlives a run: the catalogue, the ledger, journals and leases, in one folder."""
