// @ts-check
/** The parts of the page that are drawn of one answer each. */
import { flat } from './client.js';
import { colour, h, percent, told, visible } from './dom.js';
import { heatMap } from './maps.js';

/**
 * @typedef {import('../../../clients/typescript/operations').ForwardAnswer} ForwardAnswer
 * @typedef {import('../../../clients/typescript/operations').AttentionAnswer} AttentionAnswer
 * @typedef {import('../../../clients/typescript/operations').ResultAnswer} ResultAnswer
 * @typedef {import('../../../clients/typescript/operations').UnitAnswer} UnitAnswer
 * @typedef {import('../../../clients/typescript/operations').UnitExample} UnitExample
 * @typedef {import('../../../clients/typescript/operations').TextTokens} TextTokens
 */

/**
 * A prompt, cut into tokens.
 *
 * @param {TextTokens} tokens
 */
export function pieces(tokens) {
  return tokens.strings.map((text, n) => h('span', { class: 'token', title: `${n}: id ${tokens.ids[n]}` }, visible(text)));
}

/**
 * What is likely next, with the edits and without.
 *
 * @param {string} name of the prompt
 * @param {{ now: ForwardAnswer, bare: ForwardAnswer, metric: number | null, metricBare: number | null }} found
 * @param {string} answer in words
 * @param {(list: 'targets' | 'distractors', token: string) => void} take
 */
export function next(name, found, answer, take) {
  const before = new Map((found.bare.likely[0]?.[0] ?? []).map(each => [each.id, each.probability]));
  const edited = found.now !== found.bare;
  const rows = (found.now.likely[0]?.[0] ?? []).slice(0, 8).map(each => {
    const bar = h('i');
    bar.style.width = `${100 * each.probability}%`;
    const was = h('u');
    const once = before.get(each.id);
    if (once !== undefined) was.style.left = `${100 * once}%`;
    return h('tr', { 'data-token': each.string, 'data-probability': each.probability },
      h('th', { scope: 'row' }, h('span', { class: 'token' }, visible(each.string))),
      h('td', { class: 'wide' }, h('div', { class: 'bar' }, bar, edited && once !== undefined && was)),
      h('td', { class: 'number' }, percent(each.probability)),
      edited && h('td', { class: 'number soft' }, once === undefined ? '' : `was ${percent(once)}`),
      h('td', {},
        h('button', { type: 'button', class: 'small', 'aria-label': `${each.string} is a target`, title: 'make it a target', onclick: () => take('targets', each.string) }, '+'),
        h('button', { type: 'button', class: 'small', 'aria-label': `${each.string} is a distractor`, title: 'make it a distractor', onclick: () => take('distractors', each.string) }, '−')));
  });
  const told_ = found.metric === null ? [] : [
    h('b', { 'data-value': found.metric }, told(found.metric)),
    edited && found.metricBare !== null && h('span', { class: 'soft', 'data-was': found.metricBare }, ` was ${told(found.metricBare)}`)
  ];
  return h('div', { class: 'side', 'aria-label': name },
    h('p', { class: 'metric' }, h('span', { class: 'soft' }, `${answer}: `), ...told_),
    h('table', { class: 'likely' }, h('tbody', {}, ...rows)));
}

export const STATISTICS = ['answer probability', 'answer rank', 'top probability', 'entropy', 'KL'];

/**
 * Tokens × layers, the last layer on top.
 *
 * @param {string} name
 * @param {ResultAnswer} found
 * @param {string[]} tokens of the prompt
 * @param {Map<number, string>} words of ids
 * @param {string} statistic
 * @param {(says: string) => void} tell
 */
export function lens(name, found, tokens, words, statistic, tell) {
  const names = (found.axes['statistic'] ?? []).map(String);
  const layers = found.axes['layer']?.length ?? 0;
  const values = flat(found.values, 'float32');
  const ids = flat(/** @type {any} */ (found.more['ids']), 'int64');
  const chances = flat(/** @type {any} */ (found.more['probabilities']), 'float32');
  const choices = ids.length / (layers * tokens.length);
  const sheet = Math.max(0, names.findIndex(each => each.startsWith(statistic)));
  const at = (/** @type {number} */ kind, /** @type {number} */ layer, /** @type {number} */ position) =>
    values[(kind * layers + layer) * tokens.length + position] ?? NaN;
  const size = layers * tokens.length;
  const most = Math.max(1e-9, ...values.slice(sheet * size, (sheet + 1) * size).filter(Number.isFinite));
  const strength = (/** @type {number} */ value) =>
    statistic === 'answer rank' ? 1 - Math.log(Math.max(value, 1)) / Math.log(Math.max(most, 2)) : value / (statistic.includes('probability') ? 1 : most);
  const rows = Array.from({ length: layers }, (_, n) => layers - 1 - n);
  return heatMap(name, rows, tokens, (row, position) => {
    const layer = layers - 1 - row;
    const from = (layer * tokens.length + position) * choices;
    const best = Array.from({ length: Math.min(choices, 5) }, (_, n) =>
      `${visible(words.get(Number(ids[from + n])) ?? `#${ids[from + n]}`)} ${percent(chances[from + n] ?? 0)}`);
    const value = at(sheet, layer, position);
    return {
      colour: colour(strength(value)),
      text: visible(words.get(Number(ids[from])) ?? ''),
      says: `layer ${layer}, after ${visible(tokens[position] ?? '')}: ${best.join(', ')}. ${names[sheet]}: ${told(value)}`
    };
  }, tell);
}

/**
 * The ids that a lens names.
 *
 * @param {ResultAnswer} found
 */
export function idsOf(found) {
  return [...new Set([...flat(/** @type {any} */ (found.more['ids']), 'int64')].map(Number))].filter(id => id >= 0);
}

/**
 * Where a head looks: from each token (rows) to those before it.
 *
 * @param {string} name
 * @param {AttentionAnswer} found
 * @param {(says: string) => void} tell
 */
export function attention(name, found, tell) {
  const pattern = found.patterns[0];
  const tokens = found.tokens.strings;
  if (!pattern?.values) return h('div');
  const values = flat(pattern.values, 'float32');
  return heatMap(name, tokens.map(visible), tokens, (query, key) => {
    if (key > query) return null;
    const weight = values[query * tokens.length + key] ?? NaN;
    return {
      colour: colour(Math.sqrt(weight), 1),
      text: '',
      says: `from ${visible(tokens[query] ?? '')} (${query}) to ${visible(tokens[key] ?? '')} (${key}): ${percent(weight)}`
    };
  }, tell);
}

/**
 * What is stored of a unit.
 *
 * @param {UnitAnswer} found
 * @param {(unit: number) => void} open
 */
export function unitPage(found, open) {
  const most = Math.max(1e-9, ...found.strongest.flatMap(each => each.values).map(value => value ?? 0));
  const facts = Object.entries(found.moments).map(([name, value]) => h('span', { class: 'fact' }, `${name} `, h('b', {}, told(value ?? NaN))));
  const words = (/** @type {string} */ head, /** @type {[string, number][]} */ rows) =>
    rows.length > 0 && h('p', {}, h('span', { class: 'soft' }, head), ...rows.slice(0, 10).map(([text]) => h('span', { class: 'token' }, visible(text))));
  return h('div', {},
    h('p', {}, h('span', { class: 'fact' }, 'above 0 at ', h('b', {}, percent(found.rate)), ' of tokens'), ...facts, found.label && h('span', { class: 'fact' }, found.label)),
    words('makes likelier ', found.more_likely),
    words('makes less likely ', found.less_likely),
    found.correlated.length > 0 && h('p', {}, h('span', { class: 'soft' }, 'like it '),
      ...found.correlated.map(([unit, value]) => h('button', { type: 'button', class: 'small', onclick: () => open(unit) }, `${unit} (${told(value)})`))),
    h('h3', {}, 'Strongest examples'),
    h('ol', { class: 'examples' }, ...found.strongest.map(each => example(each, most))),
    found.sample.length > 0 && h('details', {}, h('summary', {}, 'A random sample'),
      h('ol', { class: 'examples' }, ...found.sample.map(each => example(each, most)))));
}

/**
 * @param {UnitExample} each
 * @param {number} most
 */
function example(each, most) {
  return h('li', {}, h('span', { class: 'number soft' }, told(each.values[each.at] ?? NaN)), ' ', ...each.tokens.map((text, n) => {
    const value = each.values[n] ?? NaN;
    const piece = h('span', { class: n === each.at ? 'word at' : 'word', title: told(value) }, text);
    piece.style.backgroundColor = colour(value / most);
    return piece;
  }));
}
