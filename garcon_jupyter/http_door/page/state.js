// @ts-check
/** What is looked at: all of it is in the fragment of the address, so that a link shows the same. The token is not in it. */

/**
 * @typedef {object} Ablation a unit that is 0, counted from the end of a prompt; at all tokens where `from_end` is null
 * @property {string} point
 * @property {number} unit
 * @property {string} label
 * @property {number | null} from_end
 *
 * @typedef {object} Sorting
 * @property {string} column
 * @property {'left' | 'right' | 'difference'} side
 * @property {boolean} up the smallest first
 *
 * @typedef {object} State
 * @property {string} left
 * @property {string} right
 * @property {string[]} targets
 * @property {string[]} distractors
 * @property {string[]} of
 * @property {number} strongest
 * @property {Ablation[]} edits
 * @property {Sorting} sort
 * @property {string} statistic of the lens
 * @property {{ layer: number, head: number } | null} head whose attention is shown
 * @property {{ point: string, unit: number } | null} unit whose records are shown
 */

/** @type {State} */
const BEGINNING = {
  left: 'When John and Mary went to the shops, John gave the bag to',
  right: 'When John and Mary went to the shops, Mary gave the bag to',
  targets: [' Mary'],
  distractors: [' John'],
  of: ['heads'],
  strongest: 30,
  edits: [],
  sort: { column: 'total effect', side: 'left', up: false },
  statistic: 'answer probability',
  head: null,
  unit: null
};

/**
 * The view that an address names; what it lacks, or has wrong, is as in the beginning.
 *
 * @param {string} fragment
 * @returns {State}
 */
export function read(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ''));
  /** @type {Record<string, unknown>} */
  const state = structuredClone(BEGINNING);
  for (const [name, standard] of Object.entries(BEGINNING)) {
    const text = given.get(name);
    if (text === null) continue;
    try {
      const value = typeof standard === 'string' ? text : JSON.parse(text);
      if (fits(value, standard)) state[name] = value;
    } catch {
      // As in the beginning.
    }
  }
  return /** @type {State} */ (/** @type {unknown} */ (state));
}

/**
 * Whether a value has the form of another.
 *
 * @param {unknown} value
 * @param {unknown} standard
 */
function fits(value, standard) {
  if (standard === null || value === null) return standard === null && (value === null || typeof value === 'object');
  return typeof value === typeof standard && Array.isArray(value) === Array.isArray(standard);
}

/**
 * @param {State} state
 * @returns {string}
 */
export function written(state) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    words.set(name, typeof value === 'string' ? value : JSON.stringify(value));
  }
  return `#${words}`;
}
