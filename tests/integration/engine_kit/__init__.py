"""A toy app that uses every feature of the engine, and a harness that runs, kills and judges it."""
