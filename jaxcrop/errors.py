"""How the package says that its input is at fault."""


class InputError(Exception):
    """Bad input: the message is one sentence that names the file or argument and the remedy.

    A command line turns it into that sentence and exit code 2.
    """


class UnfinishedWriteError(InputError):
    """A write that failed, and may have left threads behind that never end."""


def first_line(error: Exception) -> str:
    """What another library's error says, for a sentence of ours: its first line, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class MalformedError(ValueError):
    """A damaged, forged or foreign file; the message is a clause about the file ("it ...").

    Parsers raise it, which do not know the file's name; who called them says it as an InputError.
    """
