"""Records that could not be applied, as they came, with the cause.

| topic | key | written by | read by |
|---|---|---|---|
| dead-letters | the record's key | every task, in the transaction that passes over the record | operators |

The value is the original one, byte for byte. The headers say where it came from and why it lies here (the idea of
Kafka's KIP-1034).
"""

FAMILY = "dead-letters"
