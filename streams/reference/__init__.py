"""Documents of the interfaces: OpenAPI of the HTTP API, AsyncAPI of the topics, JSON Schemas, and their pages."""
