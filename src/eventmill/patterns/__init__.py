"""The seven patterns, each a small thing over the four primitives."""
