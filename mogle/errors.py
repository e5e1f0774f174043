"""What is said to a user: the one exception for what they can put right, the one warning for what they should know."""


class MogleError(ValueError):
    """A user's mistake. The message says what was found, what was expected, and what to do about it.

    The command line prints it as one line, `error: ...`, and exits with code 2.
    """


class MogleWarning(UserWarning):
    """Something was done that the user may not have meant. The command line prints it as one line, `note: ...`."""


class Cancelled(Exception):
    """Somebody who waited for a picture no longer does; raised by who watches its steps, and caught by them."""
