"""What can go wrong between a data source and a dataset folder."""


class DatasetError(Exception):
    """Base of every error of this package; the message says what to do."""


class DownloadError(DatasetError):
    """The source could not be reached. A retry helps once the network or the mirror is back."""


class ArchiveError(DatasetError):
    """The source came, and is not what it must be. A retry helps only with another archive."""


class DestinationError(DatasetError):
    """The dataset folder could not be written. A retry helps once the folder can be."""
