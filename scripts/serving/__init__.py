"""Servers for the tests. `scripts/servers` is the way in; nothing of this is part of the installed package."""
