/**
 * Numbers and names as a person says them.
 */
import { IPointRow, IServer } from './answers';

/** Seconds. */
export function duration(seconds: number): string {
  if (seconds < 120) {
    return `${Math.max(0, Math.round(seconds))} s`;
  }
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Bytes, as sizes.sized in Python. */
export function size(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let power = 0;
  for (; bytes >= 1024 && power < units.length - 1; power++) {
    bytes /= 1024;
  }
  return `${bytes.toFixed(power ? 1 : 0)} ${units[power]}`;
}

/** A number of parameters. */
export function count(parameters: number): string {
  for (const [unit, letter] of [
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'k']
  ] as [number, string][]) {
    if (parameters >= unit) {
      return `${(parameters / unit).toPrecision(3)}${letter}`;
    }
  }
  return String(parameters);
}

/** How a server's model is cut, and where. */
export function cut(server: IServer): string {
  const degrees = Object.entries(server.degrees).filter(([, n]) => n > 1);
  const device = server.ranks[0]?.device.split(':')[0] ?? '';
  const how = degrees.map(([word, n]) => `${word}=${n}`).join(' ') || 'one process';
  return device ? `${how} on ${device}` : how;
}

/** Memory of all ranks together; null where none is known. */
export function memory(server: IServer): number | null {
  const known = server.ranks.map(rank => rank.memory).filter((n): n is number => !!n);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}

/** A session by what a person calls it: that of a notebook by the notebook's name. */
export function sessionName(session: string): string {
  return session.split('/').pop() || session;
}

/** A shape, with letters where it depends on the tokens. */
export function shape(row: { shape: (string | number)[] | null }): string {
  return row.shape === null ? '' : row.shape.join(' × ');
}

/** The name, or pattern, of a row at a layer: a number, or "*" for all. */
export function fill(row: IPointRow, layer: number | '*' | null): string {
  return row.template.replace('{i}', String(layer)).replace('{e}', '*');
}

/** A text in double quotes, as a line of a magic takes it. */
export function quoted(text: string): string {
  return `"${text
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/(["\\])/g, '\\$1')}"`;
}
