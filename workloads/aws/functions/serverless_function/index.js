// The reference world's Lambda function. It prints a line for each invocation and answers with what it was given; an event may ask it to misbehave:
//
//   {"fail": WORDS}          throws
//   {"sleep_ms": N}          answers that late
//   {"answer_bytes": N}      answers with a text of that length
//   {"exit_once": NAME}      ends its process the first time it is asked under that name
//
// `nonce` of the event comes back, and is in the line. `release` is what the code says of itself.

const { existsSync, writeFileSync } = require('node:fs')
const { release } = require('./release.json')

exports.handler = async (event, context) => {
  console.log(JSON.stringify({ event: 'invoked', function: context.functionName, nonce: event.nonce ?? '', request: context.awsRequestId, release }))
  if (event.exit_once) {
    const mark = `/tmp/exited-${event.exit_once}`
    if (!existsSync(mark)) {
      writeFileSync(mark, '')
      process.exit(1)
    }
  }
  if (event.fail) throw new RangeError(event.fail)
  if (event.sleep_ms) await new Promise((resolve) => setTimeout(resolve, event.sleep_ms))
  if (event.answer_bytes) return 'x'.repeat(event.answer_bytes)
  return {
    function: context.functionName, runtime: `node ${process.versions.node}`, release, nonce: event.nonce ?? '',
    variables: { APP_MESH_ENDPOINT: process.env.APP_MESH_ENDPOINT ?? '', ENVOY_LOG_LEVEL: process.env.ENVOY_LOG_LEVEL ?? '' },
  }
}
