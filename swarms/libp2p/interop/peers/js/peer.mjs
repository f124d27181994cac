// A js-libp2p node as one side of the transport test: it listens, or dials, pings and prints the times.
import './node20.mjs'
import { Redis } from './redis.mjs'

const { IS_DIALER, LISTENER_IP, MUXER, REDIS_ADDR, SECURE_CHANNEL, TEST_KEY, TRANSPORT } = process.env
const isDialler = IS_DIALER === 'true'
const key = `${TEST_KEY}_listener_multiaddr`

// Only what the test needs is loaded, which takes most of the time of a short run.
const load = async (name, exported) => (await import(name))[exported]()
const { createLibp2p } = await import('libp2p')
const isQuic = TRANSPORT === 'quic-v1'
const place = isQuic ? `/ip4/${LISTENER_IP}/udp/0/quic-v1` : `/ip4/${LISTENER_IP}/tcp/0`

const node = await createLibp2p({
  addresses: { listen: isDialler ? [] : [place] },
  transports: [isQuic ? await load('@chainsafe/libp2p-quic', 'quic') : await load('@libp2p/tcp', 'tcp')],
  connectionEncrypters: isQuic
    ? []
    : [SECURE_CHANNEL === 'tls' ? await load('@libp2p/tls', 'tls') : await load('@chainsafe/libp2p-noise', 'noise')],
  streamMuxers: isQuic
    ? []
    : [MUXER === 'mplex' ? await load('@libp2p/mplex', 'mplex') : await load('@chainsafe/libp2p-yamux', 'yamux')],
  services: {
    identify: await load('@libp2p/identify', 'identify'),
    ping: await load('@libp2p/ping', 'ping')
  }
})

const redis = await Redis.connect(REDIS_ADDR)
if (isDialler) {
  const { multiaddr } = await import('@multiformats/multiaddr')
  const identified = new Promise((resolve) => node.addEventListener('peer:identify', resolve, { once: true }))
  const [, addr] = await redis.command('BLPOP', key, '60')
  const began = performance.now()
  const connection = await node.dial(multiaddr(addr))
  const rtt = await node.services.ping.ping(connection.remotePeer)
  const handshake = performance.now() - began
  const { detail } = await identified
  console.error(`identified ${detail.agentVersion}`)
  console.log(`latency:\n  handshake_plus_one_rtt: ${handshake.toFixed(3)}\n  ping_rtt: ${rtt.toFixed(3)}\n  unit: ms`)
  redis.close()
  await node.stop()
  process.exit(0)
} else {
  const [addr] = node.getMultiaddrs()
  await redis.command('DEL', key)
  await redis.command('RPUSH', key, addr.toString())
  console.error(`listening at ${addr}`)
}
