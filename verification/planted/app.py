"""App with the bug that `DABBAWALA_PLANTED` names: `faust -A verification.planted.app worker`."""

import os

from verification.planted.catalogue import plant

_planted = plant(os.environ["DABBAWALA_PLANTED"])
_planted.__enter__()  # stays planted until the process ends

from streams.app import app  # noqa: E402

__all__ = ["app"]
