"""A py-libp2p node as one side of the transport test: it listens, or dials, pings and prints the times."""

import os
import socket
import sys
import time

import multiaddr
import trio

from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.host.ping import PingService
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.perf import PerfService
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID, Mplex
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux


class Redis:
    """The commands of a Redis server that a test needs, over one connection."""

    def __init__(self, addr):
        host, port = addr.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), timeout=120).makefile("rwb")

    def command(self, *words):
        items = [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
        self.stream.write(b"*%d\r\n%s" % (len(words), b"".join(items)))
        self.stream.flush()
        return self.value()

    def value(self):
        line = self.stream.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if int(rest) < 0 else self.stream.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if int(rest) < 0 else [self.value() for _ in range(int(rest))]
        raise RuntimeError(f"the Redis server answered {line!r}")


def node(listen_addrs):
    keys = create_new_key_pair()
    if os.environ["TRANSPORT"] == "quic-v1":
        return new_host(key_pair=keys, enable_quic=True, listen_addrs=listen_addrs)
    if os.environ["SECURE_CHANNEL"] == "tls":
        security = {TLS: TLSTransport(libp2p_keypair=keys)}
    else:
        private_key = create_new_x25519_key_pair().private_key
        security = {NOISE: NoiseTransport(libp2p_keypair=keys, noise_privkey=private_key)}
    muxer = {MPLEX_PROTOCOL_ID: Mplex} if os.environ["MUXER"] == "mplex" else {YAMUX: Yamux}
    return new_host(key_pair=keys, sec_opt=security, muxer_opt=muxer, listen_addrs=listen_addrs)


async def listen(redis, key):
    ip = os.environ["LISTENER_IP"]
    place = "udp/0/quic-v1" if os.environ["TRANSPORT"] == "quic-v1" else "tcp/0"
    places = [multiaddr.Multiaddr(f"/ip4/{ip}/{place}")]
    host = node(places)
    async with host.run(listen_addrs=places):
        await PerfService(host).start()
        addr = str(host.get_addrs()[0])
        redis.command("DEL", key)
        redis.command("RPUSH", key, addr)
        print(f"listening at {addr}", file=sys.stderr)
        await trio.sleep_forever()


async def dial(redis, key):
    host = node(None)
    async with host.run(listen_addrs=[]):
        addr = redis.command("BLPOP", key, "60")[1]
        peer = info_from_p2p_addr(multiaddr.Multiaddr(addr))
        began = time.monotonic()
        await host.connect(peer)
        pings = PingService(host)
        await pings.ping(peer.peer_id)
        handshake = (time.monotonic() - began) * 1000
        # The service counts whole milliseconds only.
        asked = time.monotonic()
        await pings.ping(peer.peer_id)
        rtt = (time.monotonic() - asked) * 1000
        print(f"latency:\n  handshake_plus_one_rtt: {handshake:.3f}\n  ping_rtt: {rtt:.3f}\n  unit: ms", flush=True)
        # Leaving the block waits for background tasks of the host.
        os._exit(0)


if __name__ == "__main__":
    server = Redis(os.environ["REDIS_ADDR"])
    address_key = os.environ["TEST_KEY"] + "_listener_multiaddr"
    trio.run(dial if os.environ["IS_DIALER"] == "true" else listen, server, address_key)
