"""The running Dabbawala: the Faust app of a worker with its agents, tables and HTTP API, commands and the demo."""
