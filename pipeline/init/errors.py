"""What can go wrong while a configuration is drafted."""


class InitError(Exception):
    """A configuration cannot be drafted; the message says what the caller must change."""
