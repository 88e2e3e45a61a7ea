"""What tests need: the conformance suites that every backend must pass."""
