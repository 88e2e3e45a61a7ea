"""Personal data: stored so that it can be forgotten."""
