"""The names of the datasets, apart from what reads them: the command line must start fast."""

from enum import Enum


class MovieLens(str, Enum):
    """The releases that can be prepared; the value is the name on the command line."""

    ML_100K = "movielens-100k"
    ML_1M = "movielens-1m"
    LATEST = "movielens-latest"

    @property
    def folder_name(self) -> str:
        """The name of its folder under the data directory, which its config reads."""
        return self.value.replace("-", "_")


class Dataset(str, Enum):
    """Everything that can be prepared; the value is the name on the command line."""

    ML_100K = MovieLens.ML_100K.value
    ML_1M = MovieLens.ML_1M.value
    LATEST = MovieLens.LATEST.value
    RETAILROCKET = "retailrocket"
