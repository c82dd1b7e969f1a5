// @ts-check
/** The node table: units at tokens, those of both prompts in one row, by any column. */
import { COLUMNS } from './asking.js';
import { colour, h, told, visible } from './dom.js';

/**
 * @typedef {import('./asking.js').TableNode} TableNode
 * @typedef {import('./state.js').Sorting} Sorting
 * @typedef {'left' | 'right' | 'difference'} Side
 *
 * @typedef {object} Row
 * @property {string} unit
 * @property {number} from_end
 * @property {Partial<Record<'left' | 'right', TableNode>>} at
 */

const WORDS = {
  activation: 'of a neuron or latent its value; of a head the length of its output before the projection',
  'write norm': 'the length of what it writes',
  'activation × gradient': 'what the answer would lose without it, to first order',
  'direct effect': 'what it adds to the answer past all other parts',
  'total effect': 'what the answer loses when it is 0, in a run of its own'
};

/** @param {Side} side */
const SIGNS = { left: 'left', right: 'right', difference: 'Δ' };

/**
 * Rows of the union of both prompts' nodes; they meet at the same token, counted from the end.
 *
 * @param {Record<'left' | 'right', TableNode[] | null>} nodes
 * @returns {Row[]}
 */
export function aligned(nodes) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const side of /** @type {const} */ (['left', 'right'])) {
    for (const node of nodes[side] ?? []) {
      const key = `${node.unit} ${node.from_end}`;
      const row = rows.get(key) ?? { unit: node.unit, from_end: node.from_end, at: {} };
      row.at[side] = node;
      rows.set(key, row);
    }
  }
  return [...rows.values()];
}

/**
 * @param {Row} row
 * @param {string} column
 * @param {Side} side
 * @returns {number}
 */
export function number(row, column, side) {
  if (side === 'difference') return number(row, column, 'left') - number(row, column, 'right');
  return row.at[side]?.numbers[column] ?? NaN;
}

/**
 * Rows by a column, the largest first or the smallest; those without a number last.
 *
 * @param {Row[]} rows
 * @param {Sorting} by
 */
export function sorted(rows, by) {
  const value = (/** @type {Row} */ row) => number(row, by.column, by.side);
  return [...rows].sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return by.up ? a - b : b - a;
  });
}

/**
 * The table.
 *
 * @param {Row[]} rows
 * @param {boolean} both whether there are two prompts
 * @param {Sorting} by
 * @param {{ sort: (by: Sorting) => void, ablate: (row: Row) => void, open: (row: Row) => void, ablated: (row: Row) => boolean }} does
 */
export function table(rows, both, by, does) {
  /** @type {Side[]} */
  const sides = both ? ['left', 'right', 'difference'] : ['left'];
  const limits = Object.fromEntries(COLUMNS.map(column => [
    column,
    Math.max(1e-9, ...rows.flatMap(row => sides.slice(0, 2).map(side => Math.abs(number(row, column, side)) || 0)))
  ]));
  const heads = COLUMNS.map(column =>
    h('th', { colspan: sides.length, scope: 'colgroup', title: WORDS[/** @type {keyof WORDS} */ (column)], class: 'first' }, column)
  );
  const keys = COLUMNS.flatMap(column => sides.map((side, n) => {
    const on = by.column === column && by.side === side;
    const up = on ? !by.up : false;
    return h('th', { scope: 'col', class: n ? '' : 'first', 'aria-sort': on ? (by.up ? 'ascending' : 'descending') : 'none' },
      h('button', {
        type: 'button',
        'aria-label': `Sort by ${column}, ${side}`,
        onclick: () => does.sort({ column, side, up })
      }, `${both ? SIGNS[side] : 'sort'} ${on ? (by.up ? '↑' : '↓') : ''}`));
  }));
  return h('table', { class: 'nodes' },
    h('thead', {},
      h('tr', {}, h('th', { rowspan: 2, scope: 'col' }, 'Node'), h('th', { rowspan: 2, scope: 'col' }, 'at'), ...heads,
        h('th', { rowspan: 2, scope: 'col' }, h('span', { class: 'unseen' }, 'Ablate'))),
      h('tr', {}, ...keys)),
    h('tbody', {}, ...sorted(rows, by).map(row => {
      const tokens = [row.at.left?.token, row.at.right?.token].filter(each => each !== undefined);
      const off = does.ablated(row);
      return h('tr', { 'data-node': `${row.unit} ${row.from_end}` },
        h('th', { scope: 'row' }, h('button', { type: 'button', class: 'link', onclick: () => does.open(row) }, row.unit)),
        h('td', { title: `${-row.from_end} from the end` }, h('span', { class: 'token' }, [...new Set(tokens)].map(visible).join(' / '))),
        ...COLUMNS.flatMap(column => sides.map((side, n) => {
          const value = number(row, column, side);
          const cell = h('td', {
            class: n ? 'number' : 'number first',
            'data-column': `${column} ${side}`,
            'data-value': value,
            title: Number.isNaN(value) ? 'not among the strongest of this prompt, or has none' : false
          }, told(value));
          cell.style.backgroundColor = colour(value / (limits[column] ?? 1), 0.42);
          return cell;
        })),
        h('td', {}, h('button', {
          type: 'button', class: 'small', 'aria-pressed': off, onclick: () => does.ablate(row),
          'aria-label': `${off ? 'Restore' : 'Ablate'} ${row.unit} there`
        }, off ? 'restore' : 'ablate')));
    })));
}
