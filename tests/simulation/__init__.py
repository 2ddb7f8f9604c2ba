"""The product in one process, in a world that one seed decides: see ``world``."""
