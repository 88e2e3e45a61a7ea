"""Where messages are kept and carried. Each backend knows the core, and none knows another."""
