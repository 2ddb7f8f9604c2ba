"""What is served over HTTP, one module a party. Importing one registers its routes with the app."""

from streams.views import drivers, health, orders, payments, pos, restaurants, tables

__all__ = ["drivers", "health", "orders", "payments", "pos", "restaurants", "tables"]
