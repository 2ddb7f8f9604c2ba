"""The one error of the set-up: its message is a sentence for the person at the keyboard."""


class SetUpError(Exception):
    """Something on this machine keeps Dabbawala from starting; the message says what it is and what to do."""
