/**
 * What the kernel of the notebook in front knows: the connected model, attached probes, recordings.
 *
 * It is asked by a silent execution without code, between two cells. That counts no number, prints nothing and writes
 * no history. A busy kernel is not asked: what it last said stays, and is marked so.
 */
import { ISessionContext } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { KernelMessage } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

import { ITold } from './answers';

/** What is known of the notebook in front. */
export interface INotebookFacts {
  /** Whether there is a notebook, and what its kernel does. */
  state: 'none' | 'foreign' | 'starting' | 'busy' | 'ready';
  /** What its kernel said last; null where it has not used Garçon yet. */
  told: ITold | null;
}

/** What comes of a user expression: nothing but its status where it failed. */
interface IExpression {
  data?: { [mimetype: string]: string };
}

// Only where the package is imported already: a look must not cost an import.
const QUESTION =
  "__import__('sys').modules.get('garcon_jupyter') and " +
  "__import__('garcon_jupyter.server_extension.kernel_report', fromlist=['told']).told()";

/** Milliseconds for which a kernel is to be idle before it is asked: between two cells of many it is not. */
const PAUSE = 150;

/** Milliseconds until it is asked again where its answer was not the latest: at first, and at most. */
const AGAIN = [300, 5000];

/** Milliseconds after which a question that is not answered waits behind a cell. */
const BEHIND = 1000;

export class KernelWatch {
  constructor(private readonly tracker: INotebookTracker | null) {
    tracker?.currentChanged.connect(() => this.follow(), this);
    NotebookActions.executed.connect((_, { notebook }) => {
      if (notebook === this.panel?.content) {
        this.refresh();
      }
    });
    this.follow();
  }

  /** Something is known that was not. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get facts(): INotebookFacts {
    return { state: this.state(), told: this.told };
  }

  /** The notebook in front. */
  get panel(): NotebookPanel | null {
    return this.tracker?.currentWidget ?? null;
  }

  /** Ask as soon as the kernel has nothing else to do. */
  refresh(): void {
    this.outdated = true;
    this.patience = AGAIN[0];
    this.schedule(PAUSE);
  }

  private state(): INotebookFacts['state'] {
    const context = this.context;
    if (!context) {
      return 'none';
    }
    const status = context.session?.kernel?.status;
    if (!context.isReady || !status || ['starting', 'restarting', 'unknown'].includes(status)) {
      return 'starting';
    }
    if (this.foreign) {
      return 'foreign';
    }
    return status === 'busy' && (!this.asking || this.behind) ? 'busy' : 'ready';
  }

  /** Turn to the notebook that is in front now. */
  private follow(): void {
    const context = this.panel?.sessionContext ?? null;
    if (context === this.context) {
      return;
    }
    this.context?.statusChanged.disconnect(this.onStatus, this);
    this.context?.kernelChanged.disconnect(this.onKernel, this);
    this.context = context;
    context?.statusChanged.connect(this.onStatus, this);
    context?.kernelChanged.connect(this.onKernel, this);
    this.onKernel();
  }

  private onKernel(): void {
    this.told = null;
    this.foreign = false;
    this.generation += 1;
    this.asking = this.behind = false;
    this._changed.emit();
    this.refresh();
  }

  private onStatus(): void {
    const status = this.context?.session?.kernel?.status;
    if (status === 'restarting' || status === 'autorestarting') {
      this.onKernel();
      return;
    }
    if (!this.asking) {
      this._changed.emit();
      if (status === 'idle' && this.outdated) {
        this.schedule(PAUSE);
      }
    }
  }

  private schedule(milliseconds: number): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.ask(), milliseconds);
  }

  private async ask(): Promise<void> {
    const kernel = this.context?.session?.kernel;
    if (!kernel || this.asking || kernel.status !== 'idle' || document.hidden) {
      return; // its next change of status brings us back
    }
    const generation = this.generation;
    this.asking = true;
    this.outdated = false;
    const waiting = window.setTimeout(() => this.wait(generation), BEHIND);
    try {
      const info = await kernel.info;
      if (generation !== this.generation) {
        return;
      }
      this.foreign = info.language_info.name !== 'python';
      if (!this.foreign) {
        const request = { code: '', silent: true, store_history: false, stop_on_error: false };
        const future = kernel.requestExecute(
          { ...request, allow_stdin: false, user_expressions: { garcon: QUESTION } },
          true
        );
        const reply = await future.done;
        if (generation === this.generation) {
          this.take(reply.content);
        }
      }
    } catch {
      this.outdated = true; // the kernel went away meanwhile
    } finally {
      window.clearTimeout(waiting);
      if (generation === this.generation) {
        this.asking = this.behind = false;
        this._changed.emit();
      }
    }
  }

  /** The kernel was given a cell before our question reached it: that it is busy is not our doing. */
  private wait(generation: number): void {
    if (generation === this.generation) {
      this.behind = true;
      this._changed.emit();
    }
  }

  private take(content: KernelMessage.IExecuteReplyMsg['content']): void {
    if (content.status !== 'ok') {
      this.outdated = true; // aborted, because a cell before us failed
      this.schedule(PAUSE);
      return;
    }
    const answer = content.user_expressions['garcon'] as IExpression | undefined;
    const text = answer?.data?.['text/plain'] ?? 'None';
    this.told = text.startsWith('{') ? (JSON.parse(text) as ITold) : null;
    if (this.told && !this.told.current) {
      this.outdated = true;
      this.schedule(this.patience);
      this.patience = Math.min(2 * this.patience, AGAIN[1]);
    }
  }

  private context: ISessionContext | null = null;
  private told: ITold | null = null;
  private foreign = false;
  private outdated = false;
  private asking = false;
  private behind = false;
  private generation = 0;
  private timer = 0;
  private patience = AGAIN[0];
  private readonly _changed = new Signal<this, void>(this);
}
