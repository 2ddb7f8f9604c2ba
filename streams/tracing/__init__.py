"""Traces: one trace for each order, as short spans whose ids follow from the order and from causes.

`ids` and `spans` import no SDK, so a worker that exports nothing never loads OpenTelemetry; `export` does.
"""
