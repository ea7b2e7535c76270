"""The one boot: its plan, its script and what it leaves behind."""
