"""What was promised, and how it is judged from outside: a module a promise, or two that are one story.

Every check is a function of facts, and comes back with the list of what violates its promise. None reads anything.
"""
