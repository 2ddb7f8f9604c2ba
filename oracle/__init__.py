"""The oracle judges from outside whether the promises are kept.

It is a separate program (`python -m oracle`). It imports only `topics`, and reads only the committed records of the
topics and the ledgers of the outside parties, never the state of a worker.
"""

from oracle.log import CannotRead
from oracle.report import Promise, Report
from oracle.run import judge

__all__ = ["CannotRead", "Promise", "Report", "judge"]
