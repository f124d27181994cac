// A js-libp2p node in a gossipsub mesh: it takes commands from standard input, and prints what happens, a line each.
import './node20.mjs'
import { createInterface } from 'node:readline'

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { gossipsub } = await import('@libp2p/gossipsub')
const { multiaddr } = await import('@multiformats/multiaddr')

// The id of the specification; by default it has the author's key in place of its id.
const msgIdFn = ({ from, sequenceNumber }) => {
  const author = from.toMultihash().bytes
  const id = new Uint8Array(author.length + 8)
  id.set(author)
  new DataView(id.buffer).setBigUint64(author.length, sequenceNumber)
  return id
}

const topic = 'interop'
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), pubsub: gossipsub({ msgIdFn }) }
})
const { pubsub } = node.services
pubsub.addEventListener('message', ({ detail }) => console.log(`received ${new TextDecoder().decode(detail.data)}`))
pubsub.addEventListener('subscription-change', ({ detail }) => {
  if (detail.subscriptions.some((change) => change.topic === topic && change.subscribe)) {
    console.log(`subscribed ${detail.peerId}`)
  }
})
pubsub.subscribe(topic)
console.log(`at ${node.getMultiaddrs()[0]}`)

for await (const line of createInterface({ input: process.stdin })) {
  const [command, rest] = line.split(' ')
  if (command === 'connect') await node.dial(multiaddr(rest))
  if (command === 'publish') await pubsub.publish(topic, new TextEncoder().encode(rest))
}
await node.stop()
process.exit(0)
