/**
 * The questions that a browser can ask: the URLs of garcon_jupyter.server_extension.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** A request that runs or waits on a server. */
export interface IWork {
  request: string;
  session: string;
  kind: string;
  seconds: number;
}

/** A process with a part of the model. */
export interface IRank {
  rank: number;
  host: string;
  pid: number;
  device: string;
  layers?: number[];
  memory?: number | null;
}

/** A running server. */
export interface IServer {
  name: string;
  path: string;
  host: string;
  pid: number;
  model: { architecture: string; parameters: number; dtype: string };
  degrees: { [word: string]: number };
  ranks: IRank[];
  supervisor: number;
  state: 'idle' | 'busy' | 'restarting' | 'silent';
  problem: string;
  idle_left: number | null;
  clients: { user: string; session: string; host: string; pid: number }[];
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
  seconds: number;
}

export interface IOverview {
  servers: IServer[];
  launches: ILaunch[];
}

/** A model that the launch dialog offers. */
export interface IOffer {
  path: string;
  title: string;
  note: string;
  here: boolean;
}

/** What a launch takes; what is left out is chosen. */
export interface ILaunchWords {
  path: string;
  name?: string;
  tp?: number;
  pp?: number;
  dp?: number;
  dtype?: string;
  device?: string;
  idle_timeout?: string;
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

/** What went wrong, in one sentence, and what to do, in another. */
export class GarconError extends Error {
  constructor(
    readonly kind: string,
    readonly problem: string,
    readonly remedy: string
  ) {
    super(`${problem} ${remedy}`.trim());
  }
}

export class Api {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  overview(): Promise<IOverview> {
    return this.ask('GET', 'servers');
  }

  models(): Promise<IOffer[]> {
    return this.ask('GET', 'models');
  }

  launch(words: ILaunchWords): Promise<ILaunch> {
    return this.ask('POST', 'launches', words);
  }

  dismiss(id: string): Promise<void> {
    return this.ask('DELETE', `launches/${encodeURIComponent(id)}`);
  }

  stop(name: string, force: boolean): Promise<void> {
    return this.ask('DELETE', `servers/${encodeURIComponent(name)}?force=${force ? 1 : 0}`);
  }

  keepAlive(name: string): Promise<void> {
    return this.ask('POST', `servers/${encodeURIComponent(name)}/keep-alive`, {});
  }

  cancel(name: string, request: string): Promise<void> {
    return this.ask('POST', `servers/${encodeURIComponent(name)}/cancel`, { request });
  }

  points(name: string): Promise<ICatalog> {
    return this.ask('GET', `servers/${encodeURIComponent(name)}/points`);
  }

  private async ask<T>(method: string, path: string, content?: unknown): Promise<T> {
    const body = content === undefined ? undefined : JSON.stringify(content);
    const url = URLExt.join(this.settings.baseUrl, 'garcon', path);
    const response = await ServerConnection.makeRequest(url, { method, body }, this.settings);
    const text = await response.text();
    let value: any = {};
    try {
      value = JSON.parse(text);
    } catch {
      // A page of some proxy: the status says more.
    }
    if (!response.ok) {
      const problem = value.problem ?? value.message ?? `Jupyter answered ${response.status}.`;
      throw new GarconError(value.kind ?? 'Error', problem, value.remedy ?? '');
    }
    return value as T;
  }
}
