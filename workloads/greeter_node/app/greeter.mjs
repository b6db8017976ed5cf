// The greeter in JavaScript: says which version and pod answered and what it saw of the request, with Node's own server.
//
// Environment: PORT (8080), VERSION ("unversioned"), POD_NAME (host name), TARGET (adds "greeting": "Hello <TARGET>!", and the header
// x-greeting).
//
//   GET /healthz   200
//
// Every other path, with any method, is a request to the function. Its answers are those of workloads/greeter; it does not misbehave.
// It prints one JSON line when it listens and one for each request.

import { readFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'
import { hostname } from 'node:os'

// /proc counts a process's age in ticks of USER_HZ, which Linux fixes at 100 for every program.
const TICKS_PER_S = 100
const version = process.env.VERSION || 'unversioned'
const pod = process.env.POD_NAME || hostname()
const greeting = process.env.TARGET ? `Hello ${process.env.TARGET}!` : ''
let counted = 0

// At once, and whole: a container's log is read while it runs.
const say = (line) => writeSync(1, JSON.stringify(line) + '\n')

// When the kernel made this process, in milliseconds since 1970 (to 10 ms): before Node, V8 and this file.
const processBeganMs = () => {
  const ticks = Number(readFileSync('/proc/self/stat', 'utf8').split(') ').pop().split(' ')[19])
  const upSeconds = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  return Date.now() - (upSeconds - ticks / TICKS_PER_S) * 1000
}

// Header names in lower case, each with every value that came, in their order.
const headersOf = (raw) => {
  const headers = {}
  for (let i = 0; i < raw.length; i += 2) (headers[raw[i].toLowerCase()] ??= []).push(raw[i + 1])
  return headers
}

const greet = (request, response) => {
  const [path, ...rest] = request.url.split('?')
  if (path === '/healthz') {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end('ok\n')
    return
  }
  const requestID = request.headers['x-request-id'] ?? ''
  say({ request_id: requestID, method: request.method, path, version })
  const count = ++counted
  let read = 0
  request.on('data', (chunk) => { read += chunk.length })
  request.on('end', () => {
    const said = {
      ...(greeting && { greeting }),
      version, pod, path, query: rest.join('?'), method: request.method, protocol: `HTTP/${request.httpVersion}`,
      host: request.headers.host ?? '', headers: headersOf(request.rawHeaders), body_bytes: read, count, request_id: requestID,
    }
    const body = JSON.stringify(said) + '\n'
    response.writeHead(200, {
      'content-type': 'application/json', 'content-length': Buffer.byteLength(body),
      'x-version': version, 'x-pod': pod, 'x-request-id': requestID, ...(greeting && { 'x-greeting': greeting }),
    }).end(body)
  })
}

const began = processBeganMs()
const server = createServer(greet)
// Node closes a connection that was idle for 5 s; a proxy that sends on it at that moment gets no answer.
server.keepAliveTimeout = 75_000
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeIdleConnections() })
server.listen(Number(process.env.PORT || 8080), () => {
  say({ runtime: `node ${process.versions.node}`, process_began_ms: began, listening_ms: Date.now() })
})
