"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake or a lack on the user's side: one line that names what is wrong and what to do.

    The command line prints the message and leaves with exit status 2, without a traceback.
    """
