/**
 * What Python and the browser tell each other: the traits of each widget as they arrive in the browser.
 *
 * Only for the type checker; nothing of it is in a page. What a trait means is said where Python declares it, and
 * tests/widgets/test_javascript.py holds the two lists against each other.
 */

/** The browser's end of a widget: anywidget's model. */
export interface Model<Traits> {
  get<Name extends keyof Traits>(name: Name): Traits[Name];
  set<Name extends keyof Traits>(name: Name, value: Traits[Name]): void;
  save_changes(): void;
  send(content: { do: string }): void;
  on(event: `change:${keyof Traits & string}`, heard: () => void): void;
  off(event: `change:${keyof Traits & string}`, heard: () => void): void;
}

/** What anywidget gives to `render`. */
export interface Place<Traits> {
  model: Model<Traits>;
  el: HTMLElement;
}

/** A word with its probability, and with what it was before an edit. */
export type Chance = [word: string, probability: number, before?: number];

/** A trait of bytes; empty before there are any. */
export type Bytes = DataView;

/** picture.py: what all of them share. */
export interface Picture {
  title: string;
  busy: boolean;
  filling: boolean;
  unfinished: string;
  trouble: string;
  palette: Bytes;
}

/** activations.py */
export interface Activations extends Picture {
  unit_name: string;
  labels: string[];
  row: number;
  rows: number;
  head: number;
  heads: number;
  units: number;
  sort_token: number;
  selected_token: number;
  selected_unit: number;
  window: [number, number];
  limit: number;
  largest: number;
  counts: Bytes;
  spread: [number, number];
  counted: number;
  frame: Bytes;
  pooled: number;
  order: Bytes;
  detail: Bytes;
  detail_pooled: number;
  detail_window: [number, number];
}

/** attention.py; each layer of the overview has a trait of its own. */
export interface Attention extends Picture {
  query_labels: string[];
  key_labels: string[];
  row: number;
  rows: number;
  heads: number;
  selected_head: number;
  selected_query: number;
  selected_key: number;
  limit: number;
  root: boolean;
  layer: number;
  layers: number;
  view: "matrix" | "lines";
  hide_first: boolean;
  thumbnails: Bytes;
  thumbnail_shape: [number, number];
  matrix: Bytes;
  matrix_head: number;
  here: number;
  overview: boolean;
  small_shape: [number, number];
  [small: `small_${number}`]: Bytes;
}

/** A sheet of a grid, as grid.Sheet.packed. */
export interface Sheet {
  name: string;
  rows: string[];
  columns: string[];
  row_name: string;
  column_name: string;
  values: Bytes;
  codes: Bytes;
  ticks: [number, string][];
  signed: boolean;
}

/** grid.py */
export interface Grid extends Picture {
  sheets: Sheet[];
  sheet: number;
  selected_row: number;
  selected_column: number;
  hint: string;
  detail: { title?: string; text?: string; rows?: Chance[] };
  words: string[];
  tops: Bytes;
  top_probabilities: Bytes;
}

/** members.py */
export interface Members extends Picture {
  labels: string[];
  errors: string[];
  places: number[];
  ticks: string[];
  axis: string;
  rows: string[];
  columns: string[];
  sheets: string[];
  names: string[];
  numbers: Bytes;
  limit: number;
  sheet: number;
  selected_row: number;
  selected_column: number;
}

/** dots.py */
export interface Dots extends Picture {
  subtitle: string;
  names: string[];
  texts: string[];
  places: Bytes;
  codes: Bytes;
  selected: number[];
}

/** A token whose predictions change, as moves.Flip. */
export interface Flip {
  token: string;
  said: string;
  places: [before: string, one: string, two: string, after: string][];
}

/** moves.py */
export interface Moves extends Picture {
  subtitle: string;
  moves: Bytes;
  names: string[];
  texts: string[][];
  tokens: [word: string, lift: number, said: string][];
  flips: Flip[];
  limit: number;
  selected: number;
  live: boolean;
}

/** tokens.py */
export interface Tokens extends Picture {
  pieces: string[];
  metrics: string[];
  metric: number;
  numbers: Bytes;
  limits: number[];
  selected_token: number;
  words: string[];
  predicted: Bytes;
  probabilities: Bytes;
}

/** Tokens of a text with a neuron's value at each. */
export interface Example {
  tokens: string[];
  values: number[];
}

/** Words or units with a number: what a neuron does to a logit, what it fires with. */
export type Effects = [string, number][];

/** Connections of one kind: partners, how strong, and the key of each partner's page, "" where it has none. */
export interface Connections {
  name: string;
  said: string;
  rows: [string, number, string][];
}

/** A record of a neuron, as neuron.record; all but the name may be missing. */
export interface NeuronRecord {
  fires?: string;
  largest?: number;
  histogram?: { counts: number[]; edges: number[] };
  top?: Example[];
  intervals?: { low: number; high: number; said: string; examples?: Example[] }[];
  up?: Effects;
  down?: Effects;
  correlated?: Effects;
  connections?: Connections[];
  said?: { text: string; by: string; scores: string }[];
}

/** neuron.py */
export interface Neuron extends Picture {
  record: NeuronRecord;
  text: string;
  tried: Partial<Example>;
  can_try: boolean;
  key: string;
  wanted: string;
  behind: string;
  can_open: boolean;
}

/** A change of the model, as live.Edit. */
export interface Edit {
  point: string;
  kind: string;
  strength: number;
  unit: number;
  direction: string;
  on: boolean;
}

/** A point's tokens × units, with the edits and without. */
export interface Strip {
  name: string;
  tokens: number;
  units: number;
  pooled: number;
  limit: number;
  values: Bytes;
  before: Bytes;
  changed: Bytes;
}

/** live.py */
export interface Live extends Picture {
  text: string;
  points: string[];
  directions: string[];
  ranges: { [kind: string]: [number, number] };
  edits: Edit[];
  pieces: string[];
  predictions: Chance[];
  strips: Strip[];
  milliseconds: number;
}

/** A request that runs or waits on a server. */
export interface Work {
  kind: string;
  session: string;
  seconds: number;
}

/** A process with a part of the model. */
export interface Rank {
  rank: number;
  device: string;
  parameter_bytes: number;
  layers?: number[];
  memory?: number | null;
}

/** card.py; `state` is empty before the first answer. */
export interface Card extends Picture {
  facts: string[];
  state: {
    running?: Work | null;
    waiting?: Work[] | null;
    clients?: { user?: string | null; session: string }[] | null;
    idle_left?: number | null;
    ranks?: Rank[] | null;
  };
  stopped: string;
  looks: number;
  can_keep: boolean;
  can_stop: boolean;
}

/** run.py */
export interface Run extends Picture {
  state: { state?: string; fraction?: number | null; words?: string; over?: boolean };
  drawn: string;
  looks: number;
  steered: boolean;
}
