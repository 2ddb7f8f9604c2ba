"""Decisions: one module for each state machine. Pure: no I/O, no clock, no randomness, no async, no Faust."""
