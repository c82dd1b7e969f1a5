// @ts-check
/** Elements, numbers and tokens, as the whole page has them. */

/**
 * An element. `on…` are listeners, `data…` numbers for whoever reads the page, the rest attributes; false and null leave one out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {(Node | string | number | null | false)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value === true ? '' : String(value));
    }
  }
  for (const child of children) {
    if (child !== null && child !== false) made.append(typeof child === 'number' ? String(child) : child);
  }
  return made;
}

/**
 * An element of the page.
 *
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @returns {Kind}
 */
export function the(id) {
  return /** @type {Kind} */ (document.getElementById(id));
}

/**
 * A number in few characters.
 *
 * @param {number} value
 */
export function told(value) {
  if (!Number.isFinite(value)) return '·';
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  if (size !== 0 && size < 0.005) return value < 0 ? '−0' : '0';
  return value.toFixed(digits).replace('-', '−');
}

/** @param {number} share */
export function percent(share) {
  return share >= 0.1 ? `${(100 * share).toFixed(0)}%` : share >= 0.0005 ? `${(100 * share).toFixed(1)}%` : '<0.1%';
}

/**
 * A token with what cannot be seen made visible.
 *
 * @param {string} text
 */
export function visible(text) {
  return text.replaceAll(' ', '␣').replaceAll('\n', '⏎').replaceAll('\t', '⇥') || '∅';
}

/**
 * Blue above zero, orange below, nothing at zero: the palette of the widgets, as CSS.
 *
 * @param {number} strength from −1 to 1
 * @param {number} [most] opacity of full colour; text stays readable on 0.62
 */
export function colour(strength, most = 0.62) {
  if (!Number.isFinite(strength)) return 'transparent';
  const held = Math.max(-1, Math.min(1, strength));
  const opacity = most * Math.abs(held) ** 0.9;
  return held > 0 ? `rgba(32, 112, 220, ${opacity})` : `rgba(230, 104, 18, ${opacity})`;
}
