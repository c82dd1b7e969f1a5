/**
 * All that the side bar shows, in one place: what Jupyter's server tells, and what the notebook's kernel does.
 */
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { ICatalog, IFleet, IJob, ILaunch, IOverview, IServer } from './answers';
import { Api, GarconError } from './api';
import { INotebookFacts, KernelWatch } from './kernel';

/** Milliseconds between two looks, while somebody looks and while nobody does. */
const INTERVAL = { shown: 2000, hidden: 10000 };

export class State {
  constructor(
    readonly api: Api,
    readonly kernel: KernelWatch
  ) {
    kernel.changed.connect(() => this.settle());
    this.poll = new Poll({
      name: 'garcon:servers',
      auto: true,
      factory: () => this.look(),
      frequency: { interval: INTERVAL.hidden, backoff: true, max: 30000 },
      standby: 'when-hidden'
    });
  }

  /** Something else is to be shown. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A launch that was asked for in this browser has succeeded. */
  get launched(): ISignal<this, string> {
    return this._launched;
  }

  overview: IOverview | null = null;

  /** When the overview came, in milliseconds of Date.now(). */
  at = 0;

  /** Why there is no overview. */
  problem = '';

  get servers(): IServer[] {
    return this.overview?.servers ?? [];
  }

  /** The fleets of which a member runs. */
  get fleets(): IFleet[] {
    return this.overview?.fleets ?? [];
  }

  /** Jobs of all servers and directories, whoever began them. */
  get jobs(): IJob[] {
    return this.overview?.jobs ?? [];
  }

  /** The servers of a fleet that run, in its order. */
  living(fleet: IFleet): IServer[] {
    const names = [...new Set(fleet.members.map(member => member.server))];
    return names.flatMap(name => this.servers.filter(server => server.name === name));
  }

  /** Launches to show: those that run or failed. */
  get launches(): ILaunch[] {
    return (this.overview?.launches ?? []).filter(launch => launch.state !== 'done');
  }

  get notebook(): INotebookFacts {
    return this.kernel.facts;
  }

  /** The server that the notebook is connected to, if it still runs. */
  get connected(): IServer | null {
    const model = this.notebook.told?.model;
    const same = (s: IServer) => s.name === model?.server && s.supervisor === model?.supervisor;
    return this.servers.find(same) ?? null;
  }

  /** The server whose points are shown: the connected one, else the chosen one, else the first. */
  get shown(): IServer | null {
    const chosen = this.servers.find(server => server.name === this.chosen);
    return this.connected ?? chosen ?? this.servers[0] ?? null;
  }

  /** The points of the shown server; null until they are there. */
  get catalog(): ICatalog | null {
    return this.shown ? (this.catalogs.get(key(this.shown)) ?? null) : null;
  }

  /** Show the points of a server. */
  choose(name: string): void {
    this.chosen = name;
    this.settle();
  }

  /** Whether somebody looks at the side bar: then it is kept more up to date. */
  watch(shown: boolean): void {
    this.poll.frequency = {
      ...this.poll.frequency,
      interval: shown ? INTERVAL.shown : INTERVAL.hidden
    };
    if (shown) {
      void this.poll.refresh();
    }
  }

  /** Look again now. */
  refresh(): void {
    void this.poll.refresh();
    this.kernel.refresh();
  }

  /** Look again now, and wait for it. */
  async update(): Promise<void> {
    await this.poll.refresh();
    await this.poll.tick;
  }

  /** Remember that a launch is ours, so that its end is told. */
  expect(launch: ILaunch): void {
    this.expected.add(launch.id);
    this.poll.frequency = { ...this.poll.frequency, interval: INTERVAL.shown };
    void this.poll.refresh();
  }

  private async look(): Promise<void> {
    try {
      this.overview = await this.api.overview();
      this.at = Date.now();
      this.problem = '';
    } catch (error) {
      this.problem = error instanceof GarconError ? error.message : 'Jupyter does not answer.';
      this._changed.emit();
      throw error; // so that the next look comes later
    }
    for (const launch of this.overview.launches) {
      if (launch.state === 'done' && launch.server && this.expected.delete(launch.id)) {
        this._launched.emit(launch.server);
      }
    }
    this.settle();
  }

  /** Fetch the points of the shown server where they are missing, and say that things have changed. */
  private settle(): void {
    const server = this.shown;
    if (server && answers(server) && !this.catalogs.has(key(server))) {
      this.catalogs.set(key(server), null);
      this.api.points(server.name).then(
        catalog => {
          this.catalogs.set(key(server), catalog);
          this._changed.emit();
        },
        () => this.catalogs.delete(key(server)) // the next look tries again
      );
    }
    this._changed.emit();
  }

  private chosen = '';
  private readonly poll: Poll;
  private readonly catalogs = new Map<string, ICatalog | null>();
  private readonly expected = new Set<string>();
  private readonly _changed = new Signal<this, void>(this);
  private readonly _launched = new Signal<this, string>(this);
}

/** Whether it can be asked. */
export function answers(server: IServer): boolean {
  return server.state === 'idle' || server.state === 'busy';
}

function key(server: IServer): string {
  return `${server.name} ${server.supervisor}`;
}
