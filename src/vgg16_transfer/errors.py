"""What goes wrong because of what the user gave, not because of a bug."""


class InputError(Exception):
    """Bad input: the message is one sentence that names the file or key and says what would do.

    The command line prints it without a traceback and exits with code 2. Every room derives its own
    class from this one, so that callers can tell them apart.
    """


class WeightsError(InputError):
    """Weights that are missing or damaged, or have no such layer."""
