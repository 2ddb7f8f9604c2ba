"""The outside world: parties that speak only the public HTTP API and the topics, as real ones would."""
