"""lens_hpc: a distributed training toolkit for finding strong gravitational lenses in survey cutouts."""

__version__ = "0.1.0"


class UserError(Exception):
    """The user's input is at fault: the message says what is wrong, where, and what to do.

    It ends a command with exit status 2 and without a traceback (`lens_hpc.cli`).
    """
