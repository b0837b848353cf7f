"""The smallest client, written from proto/PROTOCOL.md alone: section 16 over WebSocket and QUIC, with further tunnels.

It shares no code with cok-client. A reader who wants to write a client in another language can follow it."""

from .quic import OverQuic
from .session import Refused
from .websocket import OverWebSocket

__all__ = ["Refused", "open_session"]


async def open_session(transport, address, host, ca):
    """Connects to a daemon over `ws` or `quic`, without asking for a session yet. `ca` is the file of its authority."""
    carrier = OverQuic if transport == "quic" else OverWebSocket
    return await carrier.open(address, host, str(ca))
