// @ts-check
/** The requests of a view: what was asked before is not asked again, and what nobody looks at any more is called off. */
import { connect, flat } from './client.js';

/**
 * @typedef {import('../../../clients/typescript/client').Ask} Ask
 * @typedef {import('../../../clients/typescript/operations').PointEdit} PointEdit
 * @typedef {import('../../../clients/typescript/operations').ResultAnswer} ResultAnswer
 * @typedef {import('./state.js').Ablation} Ablation
 */

const KEPT = 60;

/**
 * @param {string} token
 * @returns {Ask & { stop: () => void }}
 */
export function remembering(token) {
  const ask = connect({ address: window.location.origin, token });
  /** @type {Map<string, Promise<unknown>>} */
  const answers = new Map();
  /** @type {Set<string>} */
  const awaited = new Set();
  let going = new AbortController();
  /** @type {any} */
  const asking = (/** @type {any} */ operation, /** @type {any} */ request) => {
    const key = `${operation} ${JSON.stringify(request)}`;
    const known = answers.get(key);
    if (known) return known;
    const answer = ask(operation, request, { signal: going.signal });
    answers.set(key, answer);
    awaited.add(key);
    answer.then(() => awaited.delete(key), () => forget(key, answer));
    for (const old of [...answers.keys()].slice(0, -KEPT)) answers.delete(old);
    return answer;
  };
  const forget = (/** @type {string} */ key, /** @type {Promise<unknown>} */ answer) => {
    if (answers.get(key) !== answer) return;
    answers.delete(key);
    awaited.delete(key);
  };
  asking.stop = () => {
    for (const key of awaited) answers.delete(key); // or who asks the same at once is given what is called off
    awaited.clear();
    going.abort();
    going = new AbortController();
  };
  return asking;
}

/**
 * The edits of a prompt: those at tokens that it has.
 *
 * @param {Ablation[]} ablations
 * @param {number} length of the prompt, in tokens
 * @returns {PointEdit[]}
 */
export function editsOf(ablations, length) {
  return ablations
    .filter(({ from_end }) => from_end === null || -from_end <= length)
    .map(({ point, unit, from_end }) => ({
      point,
      units: [unit],
      ...(from_end === null ? {} : { positions: [from_end] })
    }));
}

/**
 * A node of a table: a unit at a token, with its numbers by column.
 *
 * @typedef {object} TableNode
 * @property {string} unit
 * @property {number} from_end
 * @property {string} token
 * @property {Record<string, number>} numbers
 */

export const COLUMNS = ['activation', 'write norm', 'activation × gradient', 'direct effect', 'total effect'];

/**
 * The rows of a table of effects.
 *
 * @param {ResultAnswer} found
 * @returns {TableNode[]}
 */
export function nodesOf(found) {
  const units = found.axes['unit'] ?? [];
  const tokens = /** @type {string[]} */ (found.facts['tokens']);
  const length = tokens.length;
  /** @type {Record<string, Float64Array>} */
  const sheets = { 'activation × gradient': flat(found.values, 'float64') };
  for (const [name, array] of Object.entries(found.more)) sheets[name] = flat(array, 'float64');
  const nodes = [];
  for (let row = 0; row < units.length; row++) {
    for (let position = 0; position < length; position++) {
      const at = row * length + position;
      if (Number.isNaN(sheets['activation × gradient']?.[at])) continue;
      const numbers = Object.fromEntries(COLUMNS.map(name => [name, sheets[name]?.[at] ?? NaN]));
      nodes.push({ unit: String(units[row]), from_end: position - length, token: tokens[position] ?? '', numbers });
    }
  }
  return nodes;
}
