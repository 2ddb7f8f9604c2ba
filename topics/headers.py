"""Names of the headers that several programs write or read, on records and on HTTP requests."""

REQUEST_ID = "dabbawala-request"
"""Header of a record that a view wrote and awaits the decision on: the id of the view's request.

It is not the id of the event, because two requests may be one event.
"""
OPERATOR_ACTED = "dabbawala-operator"
"""Header of a record that a view wrote for an operator: a signature, a blank, and the record for the audit topic."""
TRACEPARENT = "traceparent"
"""Header with the trace of a record's or request's sender (W3C Trace Context)."""
IDEMPOTENCY_KEY = "Idempotency-Key"
"""Header of a request with an effect; the receiver performs requests with one key once.

On a record that places an order without an external id, it is the source of that id. Readers ignore its case.
"""
