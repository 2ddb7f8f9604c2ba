"""Doors of the HTTP API: keys and their roles, the rules of the routes, and tokens between workers."""
