"""The app with the bug that `DABBAWALA_PLANTED` names: `faust -A tests.planted.app worker`."""

import os

from tests.planted.catalogue import plant

_planted = plant(os.environ["DABBAWALA_PLANTED"])
_planted.__enter__()  # for as long as the process lives

from streams.app import app  # noqa: E402

__all__ = ["app"]
