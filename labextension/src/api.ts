/**
 * The questions that a browser can ask: the URLs of garcon_jupyter.server_extension.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { ICatalog, IField, ILaunch, IOffer, IOverview, ITrouble } from './answers';

/** What a launch takes: a model, and what its fields ask for; what is left out is chosen. */
export interface ILaunchWords {
  path: string;
  [word: string]: string | number;
}

/** What can be done to a job. */
export type JobVerb = 'pause' | 'resume' | 'cancel';

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

  launchFields(): Promise<IField[]> {
    return this.ask('GET', 'launch-fields');
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

  stopFleet(name: string, force: boolean): Promise<void> {
    return this.ask('DELETE', `fleets/${encodeURIComponent(name)}?force=${force ? 1 : 0}`);
  }

  keepAlive(name: string): Promise<void> {
    return this.ask('POST', `servers/${encodeURIComponent(name)}/keep-alive`, {});
  }

  cancel(name: string, request: string): Promise<void> {
    return this.ask('POST', `servers/${encodeURIComponent(name)}/cancel`, { request });
  }

  steerJob(name: string, what: JobVerb): Promise<void> {
    return this.ask('POST', `jobs/${what}`, { job: name });
  }

  points(name: string): Promise<ICatalog> {
    return this.ask('GET', `servers/${encodeURIComponent(name)}/points`);
  }

  private async ask<T>(method: string, path: string, content?: unknown): Promise<T> {
    const body = content === undefined ? undefined : JSON.stringify(content);
    const url = URLExt.join(this.settings.baseUrl, 'garcon', path);
    const response = await ServerConnection.makeRequest(url, { method, body }, this.settings);
    const text = await response.text();
    let value: unknown = {};
    try {
      value = JSON.parse(text);
    } catch {
      // A page of some proxy: the status says more.
    }
    if (!response.ok) {
      const { kind, problem, remedy, message } = value as ITrouble;
      const said = problem ?? message ?? `Jupyter answered ${response.status}.`;
      throw new GarconError(kind ?? 'Error', said, remedy ?? '');
    }
    return value as T;
  }
}
