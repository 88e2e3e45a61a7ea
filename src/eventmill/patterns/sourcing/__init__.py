"""Event sourcing: streams of facts, the states folded from them, and the commands that decide on those."""
