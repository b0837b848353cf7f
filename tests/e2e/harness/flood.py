"""Initial packets of QUIC handshakes that never continue, in any number."""

import os
import socket
import time

from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header

VERSION = QuicProtocolVersion.VERSION_1


class Initials:
    """Valid Initial packets (RFC 9000, section 17.2.2), with one ClientHello for all. Each has its own id and keys."""

    def __init__(self, server_name, alpn):
        connection = QuicConnection(
            configuration=QuicConfiguration(alpn_protocols=[alpn], server_name=server_name, supported_versions=[VERSION])
        )
        connection.connect(("192.0.2.1", 443), time.monotonic())
        ((packet, _),) = connection.datagrams_to_send(time.monotonic())
        buffer = Buffer(data=packet)
        header = pull_quic_header(buffer)
        self.id_length = len(header.destination_cid)
        keys = self._keys(header.destination_cid, is_client=False)
        self.header, self.payload, self.number = keys.decrypt_packet(packet[: header.packet_length], buffer.tell(), 0)

    def _keys(self, connection_id, is_client):
        keys = CryptoPair()
        keys.setup_initial(connection_id, is_client, VERSION)
        return keys

    def __next__(self):
        connection_id = os.urandom(self.id_length)
        header = self.header[:6] + connection_id + self.header[6 + self.id_length :]
        packet = self._keys(connection_id, is_client=True).encrypt_packet(header, self.payload, self.number)
        # A server ignores a shorter datagram (section 14.1).
        return packet.ljust(1200, b"\0")


def flood(initials, target, addresses, count):
    """Sends `count` packets from the addresses in turn, from several ports of each. Returns the number of responses by
    packet type."""
    sockets = []
    for address in addresses:
        sockets.append(socket.socket(type=socket.SOCK_DGRAM))
        sockets[-1].bind((address, 0))
        sockets[-1].setblocking(False)
    answers = {kind: 0 for kind in QuicPacketType}

    def collect(from_):
        try:
            while True:
                answers[pull_quic_header(Buffer(data=from_.recv(2048)), host_cid_length=8).packet_type] += 1
        except BlockingIOError:
            pass

    for number in range(count):
        from_ = sockets[number % len(sockets)]
        from_.sendto(next(initials), target)
        collect(from_)
    # The last responses are on their way: all sockets share a short wait.
    time.sleep(0.2)
    for from_ in sockets:
        collect(from_)
        from_.close()
    return answers
