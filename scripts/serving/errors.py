"""What goes wrong, in words for the person who called."""


class ServingError(Exception):
    """The message says what failed and what to do about it."""


class NotInstalled(ServingError):
    """A server's programs are not on this machine."""
