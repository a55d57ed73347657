"""What can go wrong with a cluster."""


class SubmitError(Exception):
    """A compiled pipeline could not be handed over; the message says whether to try again."""
