"""What is served over HTTP, one module a party. Importing one registers its routes with the app."""

from streams.views import drivers, feed, health, orders, payments, pos, tables

__all__ = ["drivers", "feed", "health", "orders", "payments", "pos", "tables"]
