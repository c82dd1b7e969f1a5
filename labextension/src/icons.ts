import { LabIcon } from '@jupyterlab/ui-components';

function icon(name: string, drawing: string, viewBox = '0 0 24 24'): LabIcon {
  const svgstr = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="${viewBox}"><g class="jp-icon3" fill="#616161">${drawing}</g></svg>`;
  return new LabIcon({ name: `garcon:${name}`, svgstr });
}

const DISH =
  '<circle cx="12" cy="5.2" r="1.7"/><path d="M3.2 16.2a8.8 8.8 0 0 1 17.6 0z"/><rect x="1.6" y="17.6" width="20.8" height="2.2" rx="1.1"/>';

/** A dish under its cover, as a waiter brings it. */
export const garconIcon = icon('dish', DISH);

/** The same as an image: the launcher's cards of notebooks take no other. */
export const garconImage =
  'data:image/svg+xml,' +
  encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><g fill="#1976d2">${DISH}</g></svg>`
  );

export const eyeIcon = icon(
  'eye',
  '<path d="M12 5C6.5 5 2.7 9.3 1.5 12c1.2 2.7 5 7 10.5 7s9.3-4.3 10.5-7C21.3 9.3 17.5 5 12 5zm0 11.5a4.5 4.5 0 1 1 0-9 4.5 4.5 0 0 1 0 9z"/><circle cx="12" cy="12" r="2.6"/>'
);

export const clockIcon = icon(
  'clock',
  '<path d="M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16z"/><path d="M12.8 7h-1.6v5.7l4.4 2.7.8-1.3-3.6-2.2z"/>'
);
