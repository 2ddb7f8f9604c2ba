"""What is decided: one module a state machine. Pure: no I/O, no clock, no randomness, no async, no Faust."""
