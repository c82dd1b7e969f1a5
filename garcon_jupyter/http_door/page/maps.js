// @ts-check
/** Heat maps: tables whose cells are gone through by the arrow keys. */
import { h, visible } from './dom.js';

/**
 * @typedef {object} Cell
 * @property {string} colour
 * @property {string} text
 * @property {string} says what is told of it when it is pointed at
 */

/**
 * @param {string} caption
 * @param {(string | number)[]} rows names of the rows
 * @param {string[]} columns tokens
 * @param {(row: number, column: number) => Cell | null} cell
 * @param {(says: string) => void} tell
 */
export function heatMap(caption, rows, columns, cell, tell) {
  let first = true;
  const body = rows.map((name, row) => h('tr', {}, h('th', { scope: 'row' }, name), ...columns.map((_, column) => {
    const found = cell(row, column);
    if (!found) return h('td', { class: 'none' });
    const made = h('td', { tabindex: first ? 0 : -1, 'aria-label': found.says, 'data-at': `${row} ${column}` }, found.text && h('span', {}, found.text));
    first = false;
    made.style.backgroundColor = found.colour;
    made.addEventListener('pointerenter', () => tell(found.says));
    made.addEventListener('focus', () => tell(found.says));
    return made;
  })));
  const table = h('table', { class: 'map' },
    h('caption', {}, caption),
    h('thead', {}, h('tr', {}, h('td', {}), ...columns.map(token => h('th', { scope: 'col', title: visible(token) }, h('span', {}, visible(token)))))),
    h('tbody', {}, ...body));
  table.addEventListener('keydown', event => move(table, event));
  return h('div', { class: 'scroll side' }, table);
}

const STEPS = /** @type {Record<string, [number, number]>} */ ({
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]
});

/**
 * Go to the next cell.
 *
 * @param {HTMLTableElement} table
 * @param {KeyboardEvent} event
 */
function move(table, event) {
  const step = STEPS[event.key];
  const at = event.target instanceof HTMLElement ? event.target.dataset['at'] : undefined;
  if (!step || !at || !(event.target instanceof HTMLElement)) return;
  const [row = 0, column = 0] = at.split(' ').map(Number);
  const next = table.querySelector(`[data-at="${row + step[0]} ${column + step[1]}"]`);
  event.preventDefault();
  if (!(next instanceof HTMLElement)) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
