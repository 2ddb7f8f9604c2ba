"""`python -m verification.chaos`: see `run.py`."""

import sys

from verification.chaos.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
