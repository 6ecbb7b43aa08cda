"""How the parsers of checkpoint files say that the bytes before them are no checkpoint."""


class MalformedError(ValueError):
    """A damaged, forged or foreign file; the message is a clause about the file ("it ...")."""
