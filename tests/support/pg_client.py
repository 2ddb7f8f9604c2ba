"""A client of PostgreSQL's protocol that sends any bytes a test wants, and authenticates itself if asked."""

import asyncio
import base64
import hmac
import struct
from hashlib import pbkdf2_hmac, sha256
from typing import NamedTuple, Self

DEADLINE_S = 30.0


class Message(NamedTuple):
    """A message of the server."""

    kind: str
    payload: bytes

    @property
    def fields(self) -> dict[str, str]:
        """Fields of an error or notice."""
        parts = self.payload.rstrip(b"\0").split(b"\0")
        return {part[:1].decode(): part[1:].decode() for part in parts}


def frame(kind: str, payload: bytes = b"") -> bytes:
    """Return a message."""
    return kind.encode() + struct.pack("!i", len(payload) + 4) + payload


def startup(version: int = 3 << 16, **options: str) -> bytes:
    """Return the first packet."""
    body = struct.pack("!i", version)
    for name, value in options.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!i", len(body) + 4) + body


def query(sql: str) -> bytes:
    """Return a Query message."""
    return frame("Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "", oids: tuple[int, ...] = ()) -> bytes:
    """Return a Parse message."""
    types = struct.pack("!h", len(oids)) + b"".join(struct.pack("!I", oid) for oid in oids)
    return frame("P", name.encode() + b"\0" + sql.encode() + b"\0" + types)


def bind(
    values: tuple[bytes | None, ...] = (),
    *,
    statement: str = "",
    portal: str = "",
    formats: tuple[int, ...] = (),
    results: tuple[int, ...] = (),
) -> bytes:
    """Return a Bind message."""
    body = portal.encode() + b"\0" + statement.encode() + b"\0"
    body += struct.pack(f"!{len(formats) + 1}h", len(formats), *formats) + struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return frame("B", body + struct.pack(f"!{len(results) + 1}h", len(results), *results))


def describe(kind: str = "P", name: str = "") -> bytes:
    """Return a Describe message."""
    return frame("D", kind.encode() + name.encode() + b"\0")


def execute(limit: int = 0, portal: str = "") -> bytes:
    """Return an Execute message."""
    return frame("E", portal.encode() + b"\0" + struct.pack("!i", limit))


SYNC = frame("S")
FLUSH = frame("H")
TERMINATE = frame("X")


class PgClient:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.key = b""
        self.settings: dict[str, str] = {}

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect, and send nothing."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    @classmethod
    async def log_in(cls, port: int, password: str, version: int = 3 << 16, **options: str) -> Self:
        """Connect and authenticate."""
        client = await cls.open(port)
        client.send(startup(version, **{"user": "operator", "database": "dabbawala", **options}))
        await client.authenticate(password)
        for message in await client.until("Z"):
            if message.kind == "K":
                client.key = message.payload
            if message.kind == "S":
                name, value, _ = message.payload.decode().split("\0")
                client.settings[name] = value
        return client

    def send(self, *data: bytes) -> None:
        """Send bytes."""
        self.writer.write(b"".join(data))

    async def message(self) -> Message:
        """Read the next message."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readexactly(5)
            return Message(chr(head[0]), await self.reader.readexactly(struct.unpack("!i", head[1:])[0] - 4))

    async def until(self, kind: str) -> list[Message]:
        """Read messages to one of a kind."""
        messages = [await self.message()]
        while messages[-1].kind != kind:
            messages.append(await self.message())
        return messages

    async def ask(self, *data: bytes) -> list[Message]:
        """Send bytes, and read all messages to the one that the server is ready."""
        self.send(*data)
        return await self.until("Z")

    async def closed(self) -> bytes:
        """Read to the end of the connection."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()

    async def authenticate(self, password: str, *, final: bytes | None = None) -> None:
        """Prove the password by SCRAM-SHA-256; send ``final`` in place of the proof if given."""
        await self.until("R")
        first = "n=,r=client-nonce"
        data = f"n,,{first}".encode()
        self.send(frame("p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(data)) + data))
        challenge = (await self.message()).payload[4:].decode()
        nonce, salt, iterations = (part[2:] for part in challenge.split(","))
        salted = pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
        key = hmac.digest(salted, b"Client Key", "sha256")
        last = f"c=biws,r={nonce}"
        signature = hmac.digest(sha256(key).digest(), f"{first},{challenge},{last}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.send(frame("p", final or f"{last},p={proof}".encode()))

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()


def kinds(messages: list[Message]) -> str:
    """Return the types of messages in one text."""
    return "".join(message.kind for message in messages)
