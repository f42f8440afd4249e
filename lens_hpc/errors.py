"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """The user's input is at fault: the message says what is wrong, where, and what to do.

    It ends a command with exit status 2 and without a traceback (`lens_hpc.cli`).
    """
