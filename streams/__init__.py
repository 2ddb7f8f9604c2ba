"""How Dabbawala runs: the Faust app, its agents and tables, and the task engine under them."""
