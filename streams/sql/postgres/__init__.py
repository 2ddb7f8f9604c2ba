"""PostgreSQL's protocol 3 over the query engine, for psql, drivers and dashboards: `dabbawala sql --serve`.

- `server`: address, connections, and `serve`
- `connection`: the state of one client
- `portals`: its prepared statements and running results
- `messages`: the bytes of the protocol
- `authentication`: SCRAM-SHA-256 and the password's file
- `types`: OIDs and values
- `statements`: the text of statements, and those that the server answers by itself
- `catalogue`: `pg_catalog` and `information_schema`
"""

from streams.sql.postgres.authentication import WrongPasswordFile
from streams.sql.postgres.connection import Limits
from streams.sql.postgres.server import WrongAddress, serve

__all__ = ["Limits", "WrongAddress", "WrongPasswordFile", "serve"]
