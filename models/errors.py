"""Errors of the package.

ModelError
├── ChangedFeaturesError   the model was trained with other features
├── WarmStartError         the earlier model does not fit the configuration
├── DivergedError          scores or weights are not finite
├── TooFewEventsError      there are too few training events for the ranker
├── ClusterError           TF_CONFIG is missing or wrong
├── WorkerFailedError      the chief's training process failed
└── AllTrialsFailedError   no trial of a search finished
"""


class ModelError(Exception):
    """Base class of the package's errors; a retry with the same inputs fails again."""


class ChangedFeaturesError(ModelError, ValueError):
    """The model was trained with other IDs or features than the configuration declares."""


class WarmStartError(ModelError):
    """Training cannot start from the earlier model with this configuration."""


class DivergedError(ModelError):
    """The scores of the model are not finite: training has diverged."""


class TooFewEventsError(ModelError):
    """There are too few training events to train a ranker."""


class ClusterError(ModelError):
    """TF_CONFIG does not describe a cluster and the task of this process."""


class WorkerFailedError(ModelError):
    """The training process of the chief failed; its output is in the run's log."""


class AllTrialsFailedError(ModelError):
    """No trial of a search finished; the search space must be changed."""
