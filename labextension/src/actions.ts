/**
 * What a person can do to servers; each asks where something would be lost, and says what went wrong.
 */
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';

import { IFleet, IJob, ILaunch, IServer, IWork } from './answers';
import { GarconError, JobVerb } from './api';
import { askWhatToLaunch } from './launchdialog';
import { Notebooks } from './notebooks';
import { State } from './state';

export class Actions {
  constructor(
    private readonly state: State,
    readonly notebooks: Notebooks
  ) {
    state.launched.connect((_, server) => {
      Notification.success(`${server} runs.`, { autoClose: 4000 });
      if (this.toConnect) {
        this.toConnect = false;
        void this.attempt(() => notebooks.connect(server));
      }
    });
  }

  /** Ask what to launch, and launch it. */
  async launch(): Promise<void> {
    await this.attempt(async () => {
      const api = this.state.api;
      const [offers, fields] = await Promise.all([api.models(), api.launchFields()]);
      const chosen = await askWhatToLaunch(offers, fields, this.state.kernel.panel !== null);
      if (chosen) {
        const launch = await api.launch(chosen.words);
        this.toConnect = chosen.connect;
        this.state.expect(launch);
      }
    });
  }

  /** Stop a launch, or forget how it ended. */
  async dismiss(launch: ILaunch): Promise<void> {
    await this.attempt(() => this.state.api.dismiss(launch.id));
  }

  async connect(server: IServer): Promise<void> {
    await this.attempt(() => this.notebooks.connect(server.name));
  }

  async keepAlive(server: IServer): Promise<void> {
    await this.attempt(() => this.state.api.keepAlive(server.name));
  }

  /** End a server, after saying who loses what. */
  async stop(server: IServer): Promise<void> {
    await this.end(server.name, [server], force => this.state.api.stop(server.name, force));
  }

  /** End all members of a fleet, after saying who loses what. */
  async stopFleet(fleet: IFleet): Promise<void> {
    const members = this.state.living(fleet);
    const what = `the fleet ${fleet.name}`;
    await this.end(what, members, force => this.state.api.stopFleet(fleet.name, force));
  }

  private async end(
    what: string,
    servers: IServer[],
    stop: (force: boolean) => Promise<void>
  ): Promise<void> {
    const clients = servers.flatMap(server => server.clients);
    const users = [...new Set(clients.map(client => `${client.user} (${client.session})`))];
    const again = servers.length > 1 ? 'The models' : 'The model';
    const result = await showDialog({
      title: `Stop ${what}?`,
      body: users.length
        ? `It is used by ${users.join(', ')}. Their recordings on the server are lost.`
        : `Recordings on the server are lost. ${again} can be launched again.`,
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Stop' })]
    });
    if (result.button.accept) {
      await this.attempt(() => stop(users.length > 0));
    }
  }

  /** Stop a request; somebody else's only after a question. */
  async cancel(server: IServer, work: IWork): Promise<void> {
    if (work.session !== this.state.notebook.told?.model?.session) {
      const result = await showDialog({
        title: `Cancel the request of ${work.session}?`,
        body: 'It belongs to another session. Its cell fails as if it had been interrupted.',
        buttons: [
          Dialog.cancelButton({ label: 'Leave it' }),
          Dialog.warnButton({ label: 'Cancel it' })
        ]
      });
      if (!result.button.accept) {
        return;
      }
    }
    await this.attempt(() => this.state.api.cancel(server.name, work.request));
  }

  /** Pause a job, or go on with it. */
  async steerJob(job: IJob, what: JobVerb): Promise<void> {
    await this.attempt(() => this.state.api.steerJob(job.name, what));
  }

  /** End a job, after saying what is lost. */
  async cancelJob(job: IJob): Promise<void> {
    const result = await showDialog({
      title: `Cancel ${job.title}?`,
      body: `The ${job.kind} ends; what it has done so far may be lost. Pause it to go on later.`,
      buttons: [
        Dialog.cancelButton({ label: 'Leave it' }),
        Dialog.warnButton({ label: 'Cancel it' })
      ]
    });
    if (result.button.accept) {
      await this.steerJob(job, 'cancel');
    }
  }

  /** Do something, say what went wrong, and look again. */
  async attempt(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const message = error instanceof GarconError ? error.message : `${error}`;
      Notification.error(message, { autoClose: 10000 });
    }
    this.state.refresh();
  }

  private toConnect = false;
}
