"""Calls to outside parties over HTTP. Each is a row until it is answered; the row's key is its idempotency key."""
