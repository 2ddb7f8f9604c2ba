"""SQL over the committed rows of all workers, in a process of its user: never in a worker."""
