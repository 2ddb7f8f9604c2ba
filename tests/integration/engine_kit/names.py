"""Names of the toy's topics and tables. ``run`` is unique to a test: it is the app's id and prefixes every topic."""

PARTITIONS = 4
TABLES = ("counts", "journal", "seen", "fired", "called")
OWN_TABLES = ("positions", "timers", "calls")


def orders(run: str) -> str:
    return f"{run}-orders"


def pos(run: str) -> str:
    return f"{run}-pos"


def dead_letters(run: str) -> str:
    return f"{run}-dead-letters"


def changelog(run: str, table: str) -> str:
    return f"{run}-{table}-changelog"
