/** What is wrong, in one sentence, and what to do, in another. */
export class OperationError extends Error {
    status;
    failure;
    retryAfter;
    /**
     * @param status of HTTP; 0 where there was no answer
     * @param failure as the door tells it: the kind of error, problem, remedy, the nearest valid names
     * @param retryAfter seconds after which it may be asked again, where the door said so
     */
    constructor(status, failure, retryAfter) {
        super(`${failure.problem} ${failure.remedy}`.trim());
        this.status = status;
        this.failure = failure;
        this.retryAfter = retryAfter;
        this.name = 'OperationError';
    }
}
/** A door over HTTP: its address and its token, which `garcon serve` prints the file of. */
export function connect(door) {
    const base = door.address.replace(/\/+$/, '');
    return asking((operation, init) => {
        const headers = new Headers(init.headers);
        headers.set('Authorization', `Bearer ${door.token}`);
        return fetch(`${base}/v1/${operation}`, { ...init, headers });
    });
}
/** Asks operations by whatever sends them. */
export function asking(send) {
    return async (operation, request, options = {}) => {
        const headers = new Headers({ 'Content-Type': 'application/json' });
        if (options.told) {
            headers.set('Accept', 'text/event-stream');
        }
        const init = { method: 'POST', headers, body: JSON.stringify(request) };
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
function failureOf(status, text) {
    try {
        const told = JSON.parse(text);
        if (typeof told.problem === 'string') {
            return told;
        }
    }
    catch {
        // Told below.
    }
    return { kind: 'ServerError', problem: `The answer has status ${status}.`, remedy: '', nearest: [] };
}
/** Reads server-sent events: hands on what is told, and returns the answer. */
async function lastEvent(response, told) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
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
            }
            else if (kind === 'answer') {
                return JSON.parse(data);
            }
            else if (kind === 'failure') {
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
/**
 * The numbers of an array that came as base64 (`form: 'base64'`), flat, in C order, bit for bit.
 *
 * @throws RangeError where it came as lists, or its numbers are of a type that JavaScript lacks
 */
export function flat(array, dtype) {
    if (typeof array.base64 !== 'string' || array.dtype !== dtype) {
        throw new RangeError(`These are ${array.dtype}${array.base64 ? '' : ' as lists'}, not ${dtype} as base64.`);
    }
    const bytes = Uint8Array.from(atob(array.base64), letter => letter.charCodeAt(0));
    return new VIEWS[dtype](bytes.buffer);
}
