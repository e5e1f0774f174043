"""The one exception for what a user can put right."""


class MogleError(ValueError):
    """A user's mistake. The message says what was found, what was expected, and what to do about it.

    The command line prints it as one line, `error: ...`, and exits with code 2.
    """
