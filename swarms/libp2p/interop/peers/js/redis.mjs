// The commands of a Redis server that a test needs, over one connection.
import { connect } from 'node:net'
import { once } from 'node:events'

export class Redis {
  #socket
  #received = Buffer.alloc(0)

  static async connect (addr) {
    const [host, port] = addr.split(':')
    const redis = new Redis()
    redis.#socket = connect(Number(port), host)
    await once(redis.#socket, 'connect')
    redis.#socket.on('data', (bytes) => {
      redis.#received = Buffer.concat([redis.#received, bytes])
      redis.#socket.emit('more')
    })
    return redis
  }

  async command (...words) {
    const items = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
    this.#socket.write(`*${words.length}\r\n${items.join('')}`)
    return await this.#value()
  }

  close () {
    this.#socket.destroy()
  }

  async #line () {
    for (;;) {
      const end = this.#received.indexOf('\r\n')
      if (end >= 0) return this.#take(end)
      await once(this.#socket, 'more')
    }
  }

  #take (count) {
    const text = this.#received.subarray(0, count).toString()
    this.#received = this.#received.subarray(count + 2)
    return text
  }

  async #value () {
    const line = await this.#line()
    const count = Number(line.slice(1))
    switch (line[0]) {
      case '+':
        return line.slice(1)
      case ':':
        return count
      case '$':
        if (count < 0) return null
        while (this.#received.length < count + 2) await once(this.#socket, 'more')
        return this.#take(count)
      case '*': {
        const items = []
        for (let index = 0; index < count; index++) items.push(await this.#value())
        return count < 0 ? null : items
      }
      default:
        throw new Error(`the Redis server answered ${line}`)
    }
  }
}
