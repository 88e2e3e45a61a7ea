"""The pure part: messages, names, policies, promises. No clock, no randomness, no I/O in here."""
