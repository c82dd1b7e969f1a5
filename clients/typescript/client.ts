/**
 * Asks a model that `garcon serve` has opened a door to, from a web page or from Node.
 *
 *   const ask = connect({ address: 'http://127.0.0.1:8484', token });
 *   const found = await ask('forward', { prompts: 'The capital of France is', likely: 5 });
 *
 * Types come from openapi.json (operations.ts); what runs is a `fetch`.
 */
import type { Array as Numbers, Failure, paths } from './operations.js';

/** The name of an operation: the last part of its URL. */
export type OperationName = {
  [Path in keyof paths]: Path extends `/v1/${infer Name}` ? Name : never;
}[keyof paths];

type Post<Name extends OperationName> = paths[`/v1/${Name}`]['post'];

/** What an operation is asked. */
export type RequestOf<Name extends OperationName> =
  Post<Name>['requestBody']['content']['application/json'];

/** What an operation answers. */
export type AnswerOf<Name extends OperationName> =
  Post<Name>['responses'][200]['content']['application/json'];

/** What can be said beside a request. */
export interface Options {
  /** Aborts the request: the model stops working for it. */
  signal?: AbortSignal;
  /** Hears what an operation tells while it goes on, such as the tokens of `generate`. */
  told?: (what: unknown) => void;
}

/** Asks an operation. */
export type Ask = <Name extends OperationName>(
  operation: Name,
  request: RequestOf<Name>,
  options?: Options
) => Promise<AnswerOf<Name>>;

/** What is wrong, in one sentence, and what to do, in another. */
export class OperationError extends Error {
  /**
   * @param status of HTTP; 0 where there was no answer
   * @param failure as the door tells it: the kind of error, problem, remedy, the nearest valid names
   * @param retryAfter seconds after which it may be asked again, where the door said so
   */
  constructor(
    readonly status: number,
    readonly failure: Failure,
    readonly retryAfter?: number
  ) {
    super(`${failure.problem} ${failure.remedy}`.trim());
    this.name = 'OperationError';
  }
}

/** Sends a request: the part that differs between a web page and JupyterLab. */
export type Send = (operation: string, init: RequestInit) => Promise<Response>;

/** A door over HTTP: its address and its token, which `garcon serve` prints the file of. */
export function connect(door: { address: string; token: string }): Ask {
  const base = door.address.replace(/\/+$/, '');
  return asking((operation, init) => {
    const headers = new Headers(init.headers);
    headers.set('Authorization', `Bearer ${door.token}`);
    return fetch(`${base}/v1/${operation}`, { ...init, headers });
  });
}

/** Asks operations by whatever sends them. */
export function asking(send: Send): Ask {
  return async (operation, request, options = {}) => {
    const headers = new Headers({ 'Content-Type': 'application/json' });
    if (options.told) {
      headers.set('Accept', 'text/event-stream');
    }
    const init: RequestInit = { method: 'POST', headers, body: JSON.stringify(request) };
    if (options.signal) {
      init.signal = options.signal;
    }
    const response = await send(operation, init);
    if (!response.ok) {
      const seconds = Number(response.headers.get('Retry-After')) || undefined;
      throw new OperationError(response.status, failureOf(response.status, await response.text()), seconds);
    }
    const streamed = response.headers.get('Content-Type')?.startsWith('text/event-stream');
    return streamed ? await lastEvent(response, options.told) : await response.json();
  };
}

/** The words of a refusal, also of one that is no JSON: a proxy's page, whose status says more. */
function failureOf(status: number, text: string): Failure {
  try {
    const told = JSON.parse(text);
    if (typeof told.problem === 'string') {
      return told;
    }
  } catch {
    // Told below.
  }
  return { kind: 'ServerError', problem: `The answer has status ${status}.`, remedy: '', nearest: [] };
}

/** Reads server-sent events: hands on what is told, and returns the answer. */
async function lastEvent<Answer>(response: Response, told: Options['told']): Promise<Answer> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    text += value ?? '';
    const events = text.split('\n\n');
    text = events.pop() ?? '';
    for (const event of events) {
      const kind = /^event: (.*)$/m.exec(event)?.[1];
      const data = /^data: (.*)$/m.exec(event)?.[1] ?? '';
      if (kind === 'told') {
        told?.(JSON.parse(data));
      } else if (kind === 'answer') {
        return JSON.parse(data);
      } else if (kind === 'failure') {
        throw new OperationError(response.status, failureOf(response.status, data));
      }
    }
    if (done) {
      throw new OperationError(0, {
        kind: 'ServerGone',
        problem: 'The connection ended before the answer.',
        remedy: 'Ask again.',
        nearest: []
      });
    }
  }
}

const VIEWS = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array
};

/** The types of numbers that arrive as bytes; float16 is asked for as lists. */
export type Dtype = keyof typeof VIEWS;

/**
 * The numbers of an array that came as base64 (`form: 'base64'`), flat, in C order, bit for bit.
 *
 * @throws RangeError where it came as lists, or its numbers are of a type that JavaScript lacks
 */
export function flat<Kind extends Dtype>(
  array: Numbers,
  dtype: Kind
): InstanceType<(typeof VIEWS)[Kind]> {
  if (typeof array.base64 !== 'string' || array.dtype !== dtype) {
    throw new RangeError(`These are ${array.dtype}${array.base64 ? '' : ' as lists'}, not ${dtype} as base64.`);
  }
  const bytes = Uint8Array.from(atob(array.base64), letter => letter.charCodeAt(0));
  return new VIEWS[dtype](bytes.buffer) as InstanceType<(typeof VIEWS)[Kind]>;
}
