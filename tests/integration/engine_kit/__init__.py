"""A toy that uses everything the engine has, and what the tests need to run it, kill it and judge it."""
