// A Lambda runtime for Node: takes one invocation after the other from the runtime API of its execution environment, hands each to the
// function's handler and posts what became of it. AWS's own client for Node needs a compiler where it is installed.
//
// Environment: AWS_LAMBDA_RUNTIME_API (host:port), LAMBDA_TASK_ROOT, _HANDLER ("index.handler": an export of index.js there).

import { Agent, request } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':')
// One connection: the API gives an environment one invocation at a time.
const agent = new Agent({ keepAlive: true, maxSockets: 1 })

const call = (method, path, body = '', headers = {}) => new Promise((resolve, reject) => {
  const options = { host, port, method, path: `/2018-06-01/runtime/${path}`, agent, headers: { ...headers, 'content-length': Buffer.byteLength(body) } }
  const asked = request(options, (answer) => {
    const parts = []
    answer.on('data', (part) => parts.push(part))
    answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString() }))
  })
  asked.on('error', reject)
  asked.end(body)
})

const failure = (error) => JSON.stringify({ errorType: error?.name ?? 'Error', errorMessage: error?.message ?? String(error), trace: String(error?.stack ?? '').split('\n') })

const typeOf = (error) => ({ 'lambda-runtime-function-error-type': `Runtime.${error?.name ?? 'Error'}` })

const load = () => {
  const [file, name] = process.env._HANDLER.split('.')
  const handler = createRequire(join(process.env.LAMBDA_TASK_ROOT, '/'))(`./${file}.js`)[name]
  if (typeof handler !== 'function') throw new TypeError(`${file}.js exports no function ${name}`)
  return handler
}

// A handler answers by a promise, or by the callback that is its third argument.
const run = (handler, event, context) => new Promise((resolve, reject) => {
  const answered = handler(event, context, (error, value) => (error ? reject(error) : resolve(value)))
  if (typeof answered?.then === 'function') answered.then(resolve, reject)
})

let handler
try {
  handler = load()
} catch (error) {
  await call('POST', 'init/error', failure(error), typeOf(error))
  process.exit(1)
}
for (;;) {
  const next = await call('GET', 'invocation/next')
  const id = next.headers['lambda-runtime-aws-request-id']
  const deadline = Number(next.headers['lambda-runtime-deadline-ms'])
  process.env._X_AMZN_TRACE_ID = next.headers['lambda-runtime-trace-id'] ?? ''
  const context = {
    awsRequestId: id, invokedFunctionArn: next.headers['lambda-runtime-invoked-function-arn'],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME, getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  }
  try {
    const value = await run(handler, JSON.parse(next.body), context)
    await call('POST', `invocation/${id}/response`, JSON.stringify(value ?? null))
  } catch (error) {
    await call('POST', `invocation/${id}/error`, failure(error), typeOf(error))
  }
}
