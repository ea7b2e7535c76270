"""What a run needs, looked at before one is started: this computer, a site, its clouds."""
