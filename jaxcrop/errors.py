"""The one exception that a command line turns into a sentence and exit code 2."""


class InputError(Exception):
    """Bad input: the message is one sentence that names the file or argument and the remedy."""
