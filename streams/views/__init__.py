"""What is served over HTTP, one module a party. Importing one registers its routes with the app."""

from streams.views import drivers, health, operations, orders, payments, pos, restaurants, tables

__all__ = ["drivers", "health", "operations", "orders", "payments", "pos", "restaurants", "tables"]
