"""What can go wrong with a release."""


class ReleaseError(Exception):
    """A release that cannot be made as asked; the message says what would be right."""
