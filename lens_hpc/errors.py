"""The one kind of error that is the user's to mend, and exit statuses of commands."""

USER_ERROR_STATUS = 2
STOPPED_STATUS = 85
"""All is saved, and the same line goes on."""


class UserError(Exception):
    """The user's input is at fault: the message says what is wrong, where, and what to do.

    It ends a command with exit status 2 and without a traceback (`lens_hpc.cli`).
    """
