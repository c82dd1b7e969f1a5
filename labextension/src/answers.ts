/**
 * What Jupyter's server and the notebook's kernel answer: types alone.
 *
 * They are what garcon_jupyter.server_extension and garcon_jupyter.server_extension.kernel_report say. tests/server_extension/answers.json has
 * an example of each, which these types are held against, and so is every answer that the tests of Python get.
 */

/** A request that runs or waits on a server. */
export interface IWork {
  request: string;
  session: string;
  kind: string;
  seconds: number;
  /** Which in the queue it is, from 1, where it waits. */
  place?: number;
}

/** A process with a part of the model. */
export interface IRank {
  rank: number;
  host: string;
  pid: number;
  device: string;
  stage: number;
  tp_rank: number;
  replica: number;
  layers: number[];
  parameter_bytes: number;
  /** Bytes that it holds; null on another host than the server's, missing where the server does not answer. */
  memory?: number | null;
}

/** What a server says of its model. */
export interface IModel {
  architecture: string;
  model_type: string | null;
  family: string | null;
  dtype: string;
  /** Where logits end that are capped, as Gemma 2's. */
  logit_cap: number | null;
  parameters: number;
  unused_weights: string[];
  /** What came of holding it against its own implementation, at launch. */
  check: { outcome: string; said: string; seconds: number };
  notes: string[];
  /** What each adapter is, by the name that requests name it by. */
  adapters: { [name: string]: string };
  /** Of the libraries that it runs with. */
  versions: { [library: string]: string };
}

/** Somebody who is connected to a server. */
export interface IClient {
  user: string;
  session: string;
  host: string;
  pid: number;
}

/** A running server. */
export interface IServer {
  name: string;
  path: string;
  host: string;
  pid: number;
  model: IModel;
  degrees: { [word: string]: number };
  ranks: IRank[];
  supervisor: number;
  state: 'idle' | 'busy' | 'restarting' | 'silent';
  problem: string;
  idle_left: number | null;
  clients: IClient[];
  running: IWork | null;
  waiting: IWork[];
}

/** A launch that runs, failed, or has just succeeded. */
export interface ILaunch {
  id: string;
  path: string;
  name: string | null;
  state: 'starting' | 'done' | 'failed';
  server: string | null;
  lines: string[];
  problem: string;
  remedy: string;
  since: number;
  ended: number | null;
  seconds: number;
}

/** A member of a fleet. */
export interface IMember {
  label: string;
  /** The name of its server, which may not run; in turn all have the same. */
  server: string;
  /** Of its checkpoint; null where the fleet's file does not say. */
  path: string | null;
}

/** Several checkpoints of one architecture, of which one at least is on a running server. */
export interface IFleet {
  name: string;
  /** Whether one server has the weights of one member at a time. */
  in_turn: boolean;
  /** The label of the member that a server in turn has; null where it is not known. */
  loaded: string | null;
  members: IMember[];
}

/** What takes long and needs no notebook. */
export interface IJob {
  /** Its directory, or SERVER/RUN. */
  name: string;
  /** For short. */
  title: string;
  kind: string;
  state: 'running' | 'pausing' | 'paused' | 'failed';
  /** How far it is, or why it failed. */
  told: string;
  /** How much of it is done; null where that is not known. */
  fraction: number | null;
}

export interface IOverview {
  servers: IServer[];
  fleets: IFleet[];
  jobs: IJob[];
  launches: ILaunch[];
}

/** A model that the launch dialog offers. */
export interface IOffer {
  path: string;
  title: string;
  note: string;
  here: boolean;
}

/** A field of the launch dialog: an option of a launch. */
export interface IField {
  word: string;
  label: string;
  meaning: string;
  kind: 'text' | 'number';
  /** What is filled in. */
  initial: string;
  /** What an empty field says. */
  unset: string;
  /** Values to choose among; none where the value is written. */
  choices: { value: string; text: string }[];
}

/** A row of the table of points, as a model has it. */
export interface IPointRow {
  template: string;
  shape: (string | number)[];
  layers: number[] | null;
  what: string;
  lazy: boolean;
}

export interface ICatalog {
  n_layers: number;
  n_experts: number;
  points: IPointRow[];
}

/** What went wrong; Jupyter's own errors have a message alone. */
export interface ITrouble {
  kind?: string;
  problem?: string;
  remedy?: string;
  message?: string;
}

/** A probe that is attached in the notebook. */
export interface IAttachedProbe {
  point: string;
  name: string | null;
  grad: boolean;
  once: boolean;
  function: string;
}

/** A point of a dictionary, as the tree shows it. */
export interface IDictionaryPoint {
  point: string;
  shape: (string | number)[];
  what: string;
}

/** A dictionary that is loaded beside the model. */
export interface IDictionary {
  name: string;
  /** What its format calls it, behind the format's name. */
  kind: string;
  latents: number;
  /** The points that it reads and writes, in words. */
  where: string;
  /** Of memory, on all ranks; null where it is not known. */
  bytes: number | null;
  formula: string;
  path: string;
  points: IDictionaryPoint[];
}

/** What a probe saved. */
export interface IAttribute {
  name: string;
  kind: string;
  shape: number[] | null;
  dtype: string | null;
  preview: string;
}

export interface IRecording {
  point: string;
  name: string | null;
  attributes: IAttribute[];
}

/** The answer of garcon_jupyter.server_extension.kernel_report.told. */
export interface ITold {
  magics: boolean;
  model: { server: string; supervisor: number; session: string } | null;
  probes: IAttachedProbe[];
  dictionaries: IDictionary[];
  recordings: IRecording[];
  current: boolean;
}
