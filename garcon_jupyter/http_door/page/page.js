// @ts-check
/** The page: reads the view from the address, asks, and draws answers as they come. */
import { editsOf, nodesOf, remembering } from './asking.js';
import { OperationError } from './client.js';
import { h, the, visible } from './dom.js';
import { aligned, table } from './nodes.js';
import * as sections from './sections.js';
import { read, written } from './state.js';

/**
 * @typedef {import('../../../clients/typescript/operations').ForwardAnswer} ForwardAnswer
 * @typedef {import('../../../clients/typescript/operations').DescribeAnswer} DescribeAnswer
 * @typedef {import('../../../clients/typescript/operations').ResultAnswer} ResultAnswer
 * @typedef {import('./nodes.js').Row} Row
 * @typedef {'left' | 'right'} Side
 */

const KEY = 'garcon token';
const SIDES = /** @type {const} */ (['left', 'right']);
const NAMES = { left: 'Prompt', right: 'Compared with' };

let state = read(window.location.hash);
/** @type {ReturnType<typeof remembering> | null} */
let ask = null;
/** @type {DescribeAnswer | null} */
let described = null;
/** @type {Record<string, string>} */
let neuronPoints = { end: 'post_activation' };
/** @type {Record<Side, ResultAnswer | null>} */
let effects = { left: null, right: null };
let turn = 0;

// -- connecting ----------------------------------------------------------------------------------

/** @param {string} token */
async function enter(token) {
  ask = remembering(token);
  trouble(null);
  try {
    described = await ask('describe', {});
    const model = described.model;
    the('model').replaceChildren(...(model
      ? [h('b', {}, model.name), ` ${model.architecture}, ${model.layers} layers, ${model.dtype}`]
      : ['Stored records alone']));
    window.sessionStorage.setItem(KEY, token);
    the('door').classList.add('open');
    if (model) {
      const normed = await ask('points', { pattern: 'layers.{i}.mlp.post_activation_normed' });
      if (normed.points.length) neuronPoints = { end: 'post_activation_normed' };
    }
  } catch (error) {
    ask = null;
    the('model').textContent = 'Not connected';
    trouble(error);
    the('token').focus();
    return;
  }
  drawQuestion();
  await run();
}

/**
 * Say what is wrong and what to do; nothing where nothing is.
 *
 * @param {unknown} error
 */
function trouble(error) {
  const box = the('trouble');
  box.hidden = error === null;
  if (error === null || (error instanceof DOMException && error.name === 'AbortError')) {
    box.hidden = true;
    return;
  }
  const told = error instanceof OperationError
    ? error.failure
    : { kind: '', problem: 'The door does not answer.', remedy: 'See whether garcon serve still runs.', nearest: [] };
  if (!(error instanceof OperationError || error instanceof TypeError)) console.error(error);
  box.replaceChildren(h('b', {}, told.problem), ' ', h('span', {}, told.remedy ?? ''),
    ...(told.nearest?.length ? [h('span', { class: 'soft' }, ` Nearest: ${told.nearest.join(', ')}.`)] : []));
}

// -- the question --------------------------------------------------------------------------------

/** The fields as the state has them. */
function drawQuestion() {
  for (const side of SIDES) {
    const field = /** @type {HTMLTextAreaElement} */ (the(side));
    if (field.value !== state[side]) field.value = state[side];
  }
  /** @type {HTMLInputElement} */ (the('strongest')).value = String(state.strongest);
  drawChips('targets', 'Targets');
  drawChips('distractors', 'Distractors');
  const kinds = ['heads', 'neurons', ...(described?.dictionaries ?? []).map(each => each.name)];
  the('of').replaceChildren(h('legend', {}, 'Nodes'), ...kinds.map(kind => h('label', {},
    h('input', { type: 'checkbox', value: kind, checked: state.of.includes(kind), onchange: takeKinds }), kind)));
  const edits = the('edits');
  edits.hidden = !state.edits.length;
  edits.replaceChildren(h('span', { class: 'soft' }, 'Ablated '), ...state.edits.map((edit, n) => h('span', { class: 'chip' },
    `${edit.label} `,
    h('button', { type: 'button', class: 'link', title: 'at this token, or at all', onclick: () => widen(n) }, edit.from_end === null ? 'at all tokens' : `at ${edit.from_end}`),
    h('button', { type: 'button', 'aria-label': `Restore ${edit.label}`, onclick: () => change({ edits: state.edits.filter((_, m) => m !== n) }) }, '×'))),
    h('button', { type: 'button', class: 'link', onclick: () => change({ edits: [] }) }, 'restore all'));
  const statistic = the('statistic');
  statistic.replaceChildren(...sections.STATISTICS.map(each => h('option', { selected: each === state.statistic }, each)));
}

/**
 * @param {'targets' | 'distractors'} list
 * @param {string} label
 */
function drawChips(list, label) {
  const box = the(list);
  const field = h('input', {
    id: `${list}-new`, size: 9, spellcheck: 'false', autocomplete: 'off', placeholder: 'add…', title: 'a token; Enter adds it',
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter' || event.ctrlKey) return;
      event.preventDefault();
      if (field.value) take(list, field.value, true);
    }
  });
  box.replaceChildren(h('label', { for: `${list}-new` }, label),
    ...state[list].map(token => h('span', { class: 'chip' }, visible(token),
      h('button', { type: 'button', 'aria-label': `Remove ${token}`, onclick: () => change({ [list]: state[list].filter(each => each !== token) }) }, '×'))),
    field);
}

/**
 * @param {'targets' | 'distractors'} list
 * @param {string} token
 * @param {boolean} [stay] with the keyboard in the list's field
 */
function take(list, token, stay = false) {
  const other = list === 'targets' ? 'distractors' : 'targets';
  change({ [list]: [...new Set([...state[list], token])], [other]: state[other].filter(each => each !== token) });
  if (stay) the(`${list}-new`).focus();
}

function takeKinds() {
  const chosen = [...document.querySelectorAll('#of input:checked')].map(each => /** @type {HTMLInputElement} */ (each).value);
  if (chosen.length) change({ of: chosen });
  else drawQuestion();
}

/** @param {number} n */
function widen(n) {
  change({ edits: state.edits.map((edit, m) => (m === n ? { ...edit, from_end: null } : edit)) });
}

/**
 * Another view: it is in the address at once, and everything is asked anew.
 *
 * @param {Partial<import('./state.js').State>} more
 * @param {boolean} [again] whether anything has to be asked
 */
function change(more, again = true) {
  state = { ...state, ...more };
  const fragment = written(state);
  if (fragment !== window.location.hash) window.history.pushState(null, '', fragment);
  drawQuestion();
  if (again) void run();
}

function submit() {
  const value = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (the(id)).value;
  change({ left: value('left'), right: value('right'), strongest: Math.max(1, Math.round(Number(value('strongest'))) || 30) });
}

// -- asking and drawing --------------------------------------------------------------------------

/** Ask everything that the view shows, and draw it as it comes. */
async function run() {
  if (!ask || !described?.model) {
    if (ask) await drawUnit();
    return;
  }
  const mine = ++turn;
  ask.stop();
  trouble(null);
  the('working').textContent = 'Working…';
  document.body.classList.add('working');
  try {
    await runs(() => mine === turn);
  } catch (error) {
    if (mine === turn) trouble(error);
  }
  if (mine !== turn) return;
  the('working').textContent = '';
  document.body.classList.remove('working');
}

/** @param {() => boolean} current whether it is still what is looked at */
async function runs(current) {
  const asking = /** @type {NonNullable<typeof ask>} */ (ask);
  const sides = SIDES.filter(side => side === 'left' || state.right);
  /** @type {Partial<Record<Side, { bare: ForwardAnswer, now: ForwardAnswer, length: number }>>} */
  const passes = {};
  for (const side of sides) {
    const asked = { prompts: state[side], likely: 10 };
    const bare = await asking('forward', asked);
    if (!current()) return;
    const tokens = bare.tokens[0];
    const length = tokens?.ids.length ?? 0;
    if (tokens) the(`${side}-tokens`).replaceChildren(...sections.pieces(tokens));
    const edits = editsOf(state.edits, length);
    passes[side] = { bare, now: edits.length ? await asking('forward', { ...asked, edits }) : bare, length };
    if (!current()) return;
  }
  if (!state.right) the('right-tokens').replaceChildren();
  const likeliest = (passes.left?.bare.likely[0]?.[0] ?? []).slice(0, 2);
  const targets = state.targets.length ? state.targets : likeliest.slice(0, 1).map(each => each.id);
  const distractors = state.targets.length ? state.distractors : likeliest.slice(1).map(each => each.id);
  const words = state.targets.length ? [state.targets, state.distractors] : [likeliest.slice(0, 1), likeliest.slice(1)].map(each => each.map(one => one.string));
  const answer = `logit of ${words[0]?.map(visible).join(', ')}${words[1]?.length ? ` − ${words[1].map(visible).join(', ')}` : ''}`;

  const drawNext = (/** @type {Record<string, (number | null)[]>} */ metrics) =>
    the('next').replaceChildren(...sides.map(side => sections.next(NAMES[side], {
      ...(/** @type {any} */ (passes[side])), metric: metrics[side]?.[0] ?? null, metricBare: metrics[side]?.[1] ?? null
    }, answer, take)));
  drawNext({});

  const table_ = { of: state.of, targets, distractors, strongest: state.strongest, form: /** @type {const} */ ('base64') };
  effects = { left: null, right: null };
  /** @type {Record<string, (number | null)[]>} */
  const metrics = {};
  for (const side of sides) {
    const edits = editsOf(state.edits, passes[side]?.length ?? 0);
    const found = await asking('effects', { prompt: state[side], ...table_, edits });
    if (!current()) return;
    effects[side] = found;
    const bare = edits.length ? await asking('effects', { prompt: state[side], ...table_ }) : found;
    if (!current()) return;
    metrics[side] = [Number(found.facts['metric']), Number(bare.facts['metric'])];
    drawNext(metrics);
    drawNodes();
  }
  if (state.head) await drawAttention(current);
  if (state.unit) await drawUnit();
  await drawLens(sides, targets[0] ?? null, current);
}

/** The node table of what is there. */
function drawNodes() {
  const nodes = {
    left: effects.left && nodesOf(effects.left),
    right: effects.right && nodesOf(effects.right)
  };
  const lengths = SIDES.map(side => /** @type {unknown[]} */ (effects[side]?.facts['tokens'] ?? []).length);
  const differ = lengths[0] !== lengths[1] && lengths[1] !== 0;
  const rows = aligned(nodes);
  the('nodes-says').textContent = `${rows.length} units at a token each, the strongest by activation × gradient.`
    + `${differ ? ' The prompts have different lengths: rows meet at the same distance from the end.' : ''}`;
  const box = the('nodes');
  const focused = document.activeElement instanceof HTMLElement && box.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
  box.replaceChildren(table(rows, nodes.right !== null, state.sort, {
    sort: sort => { change({ sort }, false); drawNodes(); },
    ablate, ablated: row => editAt(row) >= 0,
    open: openNode
  }));
  if (focused) /** @type {HTMLElement | null} */ (box.querySelector(`[aria-label="${CSS.escape(focused)}"]`))?.focus();
}

/**
 * Point and number of a unit of the table.
 *
 * @param {string} label such as "head 3.1", "neuron 2.17", "NAME 5"
 */
function unitOf(label) {
  const cut = label.lastIndexOf(' ');
  const [kind, place] = [label.slice(0, cut), label.slice(cut + 1)];
  const [layer = '', number = ''] = place.split('.');
  if (kind === 'head') return { point: `layers.${layer}.attn.z`, unit: Number(number) };
  if (kind === 'neuron') return { point: `layers.${layer}.mlp.${neuronPoints['end']}`, unit: Number(number) };
  const points = described?.dictionaries.find(each => each.name === kind)?.points ?? [];
  return { point: points.find(each => each.endsWith('.latents')) ?? kind, unit: Number(place) };
}

/** @param {Row} row */
function editAt(row) {
  const { point, unit } = unitOf(row.unit);
  return state.edits.findIndex(edit => edit.point === point && edit.unit === unit && (edit.from_end === null || edit.from_end === row.from_end));
}

/** @param {Row} row */
function ablate(row) {
  const at = editAt(row);
  if (at >= 0) change({ edits: state.edits.filter((_, n) => n !== at) });
  else change({ edits: [...state.edits, { ...unitOf(row.unit), label: row.unit, from_end: row.from_end }] });
}

/** @param {Row} row */
function openNode(row) {
  const { point, unit } = unitOf(row.unit);
  if (row.unit.startsWith('head ')) {
    change({ head: { layer: Number(point.split('.')[1]), head: unit } }, false);
    void guarded(() => drawAttention(() => true), 'attention');
  } else {
    openUnit(point, unit);
  }
}

/**
 * @param {string} point
 * @param {number} unit
 */
function openUnit(point, unit) {
  change({ unit: { point, unit } }, false);
  void guarded(drawUnit, 'unit');
}

/**
 * Draw something below, and go there.
 *
 * @param {() => Promise<void>} draw
 * @param {string} id
 */
async function guarded(draw, id) {
  try {
    await draw();
    the(id).scrollIntoView({ block: 'nearest' });
  } catch (error) {
    trouble(error);
  }
}

/** @param {() => boolean} current */
async function drawAttention(current) {
  if (!ask || !state.head) return;
  const { layer, head } = state.head;
  const maps = [];
  for (const side of SIDES.filter(each => state[each])) {
    const length = the(`${side}-tokens`).childElementCount;
    const found = await ask('attention', {
      prompt: state[side], layers: [layer], heads: [head], edits: editsOf(state.edits, length), form: 'base64'
    });
    if (!current()) return;
    maps.push(sections.attention(NAMES[side], found, says => { the('attention-says').textContent = says; }));
  }
  the('attention-head').textContent = `Attention of head ${layer}.${head}`;
  the('attention-says').textContent = 'Rows look at columns.';
  the('attention-maps').replaceChildren(...maps);
  the('attention').hidden = false;
}

async function drawUnit() {
  if (!ask || !state.unit) return;
  const { point, unit } = state.unit;
  the('unit-head').textContent = `Unit ${unit} of ${point}`;
  the('unit').hidden = false;
  try {
    const found = await ask('unit', { point, unit });
    the('unit-says').replaceChildren(sections.unitPage(found, other => openUnit(point, other)));
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    const none = !described?.atlases.length;
    the('unit-says').replaceChildren(h('p', {}, h('b', {}, none ? 'No records of units are stored here.' : error.failure.problem), ' ',
      none ? 'Make an atlas, and start garcon serve with --records DIR.' : error.failure.remedy ?? ''));
  }
}

/**
 * @param {Side[]} sides
 * @param {string | number | null} answer
 * @param {() => boolean} current
 */
async function drawLens(sides, answer, current) {
  const asking = /** @type {NonNullable<typeof ask>} */ (ask);
  const drawn = [];
  for (const side of sides) {
    const edits = editsOf(state.edits, the(`${side}-tokens`).childElementCount);
    const found = await asking('lens', { prompt: state[side], answer, edits, form: 'base64' });
    const ids = sections.idsOf(found);
    const { strings } = await asking('detokenize', { ids: ids.map(id => [id]).slice(0, 64) }).catch(() => ({ strings: [] }));
    const rest = [];
    for (let from = 64; from < ids.length; from += 64) {
      rest.push(...(await asking('detokenize', { ids: ids.slice(from, from + 64).map(id => [id]) })).strings);
    }
    if (!current()) return;
    const words = new Map([...strings, ...rest].map((each, n) => [ids[n] ?? -1, each[0] ?? '']));
    const tokens = [...the(`${side}-tokens`).children].map(each => each.textContent ?? '');
    drawn.push({ side, found, tokens, words });
    lensDrawn = drawn;
    drawLensMaps();
  }
}

/** @type {{ side: Side, found: ResultAnswer, tokens: string[], words: Map<number, string> }[]} */
let lensDrawn = [];

function drawLensMaps() {
  the('lens').replaceChildren(...lensDrawn.map(({ side, found, tokens, words }) =>
    sections.lens(NAMES[side], found, tokens, words, state.statistic, says => { the('lens-says').textContent = says; })));
}

// -- listening -----------------------------------------------------------------------------------

the('door').addEventListener('submit', event => {
  event.preventDefault();
  void enter(/** @type {HTMLInputElement} */ (the('token')).value.trim());
});
the('question').addEventListener('submit', event => {
  event.preventDefault();
  submit();
});
the('question').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) submit();
});
the('statistic').addEventListener('change', event => {
  change({ statistic: /** @type {HTMLSelectElement} */ (event.target).value }, false);
  drawLensMaps();
});
window.addEventListener('popstate', () => {
  state = read(window.location.hash);
  drawQuestion();
  void run();
});

drawQuestion();
const kept = window.sessionStorage.getItem(KEY);
if (kept) void enter(kept);
else the('token').focus();
