"""Checks of the promises: one module per promise, or per two promises that belong together.

A check is a function that takes the facts and returns the violations of its promise. It does no I/O.
"""
