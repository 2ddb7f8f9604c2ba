"""The product in one process, in a world that follows from one seed: see ``world``."""
