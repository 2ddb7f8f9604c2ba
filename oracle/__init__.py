"""The oracle: judges from outside whether what was promised is kept.

A program of its own (`python -m oracle`). It imports nothing of ours but what is said on topics, and reads nothing but
what outside parties wrote down (their ledgers) and what is committed on the topics, never the state of a worker.
"""

from oracle.judging import judge
from oracle.log import CannotRead
from oracle.report import Promise, Report

__all__ = ["CannotRead", "Promise", "Report", "judge"]
