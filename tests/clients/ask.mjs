// Asks what stdin says by the compiled client, and prints what is answered: {address, token, asked: [[operation, request]…], streamed: […]}.
import { pathToFileURL } from 'node:url';

const { connect, flat, OperationError } = await import(pathToFileURL(process.argv[2]));
let text = '';
for await (const part of process.stdin) text += part;
const { address, token, asked, streamed } = JSON.parse(text);
const ask = connect({ address, token });

/** Every array of float32 that came as base64, read by `flat` and written anew: it comes back as it came, to the bit. */
const again = value => {
  if (Array.isArray(value)) return value.map(again);
  if (value === null || typeof value !== 'object') return value;
  if (typeof value.base64 === 'string' && value.dtype === 'float32') {
    const numbers = flat(value, 'float32');
    return { ...value, base64: Buffer.from(numbers.buffer).toString('base64') };
  }
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, again(each)]));
};

const answers = [];
for (const [operation, request] of asked) {
  try {
    answers.push({ answer: again(await ask(operation, request)) });
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    answers.push({ status: error.status, failure: error.failure });
  }
}
const told = [];
const answer = await ask(streamed[0], streamed[1], { told: what => told.push(what) });
const gone = new AbortController();
const called = ask('generate', { prompts: 'a', max_new_tokens: 40 }, { signal: gone.signal, told: () => gone.abort() });
const ended = await called.then(() => 'answered', error => error.name);
console.log(JSON.stringify({ answers, streamed: { told, answer }, ended }));
