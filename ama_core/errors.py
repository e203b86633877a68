"""Every error that a user can cause, each with a message that says what was wrong and what to do.

The command line prints these as one line and exits with code 2; the app shows them in a panel. Anything else that is
raised is a defect of ours.
"""

import sklearn.exceptions


class AMAError(Exception):
    """Base of all errors that are meant to be read by a user."""


class ConfigError(AMAError, ValueError):
    """A hyper-parameter is unknown, out of range, or contradicts another."""


class DataError(AMAError, ValueError):
    """Images or labels are missing, unreadable, or of the wrong kind, shape or range."""


class BundleError(AMAError):
    """A bundle, run folder or checkpoint is missing, damaged, or was not written by this software."""


class NotFittedError(AMAError, sklearn.exceptions.NotFittedError):
    """A detector was asked for scores before `fit` or `load`."""


class TrainingDiverged(AMAError):
    """Losses, weights or scores became NaN, or the critic exploded; the last good checkpoint is kept."""
