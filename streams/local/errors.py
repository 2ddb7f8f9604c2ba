"""The error of the set-up. Its message is a sentence for the person at the keyboard."""


class SetUpError(Exception):
    """Something on this machine keeps Dabbawala from starting. The message gives the cause and the remedy."""
