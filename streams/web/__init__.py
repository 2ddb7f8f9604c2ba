"""HTTP for views: reading requests, routing them to the owner, waiting for decisions, lists, errors."""
