"""What the network's room refuses."""


class BundleError(ValueError):
    """A bundle or a checkpoint that cannot be used. The message names the file, the values and what to do."""


class EncoderError(ValueError):
    """An encoder that does not exist, or that gives no features that a network could use."""


class PredictorError(ValueError):
    """A predictor that cannot be made or fed as asked: device, precision, window or bands do not fit."""


class TrainingError(ValueError):
    """A training run that cannot start or go on as asked. The message says what clashes."""


class NonFiniteLossError(ArithmeticError):
    """A loss or gradient is NaN or infinite; the weights are still those of the step before."""


class DegenerateStatisticsError(ValueError):
    """Statistics of a pair of mosaics that say nothing: a constant band, a singular covariance, a single cluster."""
