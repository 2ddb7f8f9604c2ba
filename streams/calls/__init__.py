"""Calls to the outside: a row each until it is answered, performed over HTTP with the row's key as idempotency key."""
