"""What Citrix expects: vDisk stores, names, versions, manifests, locks."""
