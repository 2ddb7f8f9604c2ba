"""Programs for those who work on the repository: generated documents and checks of prose."""
