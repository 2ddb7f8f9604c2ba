"""How the machines of one order move inside a task: read the rows, decide, write everything that follows.

`processors.workflow` decides, without knowing where rows and records come from; here it is given the order's rows, and
what it decides becomes rows, records, timers and calls of the task's transaction.
"""
