"""What is consumed: one agent a topic, named after it. Importing one registers it with the app."""

from streams.agents import deliveries, dispatch, drivers, locations, orders, payments, pos

__all__ = ["deliveries", "dispatch", "drivers", "locations", "orders", "payments", "pos"]
