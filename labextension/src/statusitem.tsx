/**
 * The item in JupyterLab's status bar: the model of this notebook, or how many servers run.
 */
import { ReactWidget, UseSignal } from '@jupyterlab/apputils';
import * as React from 'react';

import { garconIcon } from './icons';
import { Clock } from './section';
import { State } from './state';

export class StatusItem extends ReactWidget {
  constructor(
    private readonly state: State,
    private readonly open: () => void
  ) {
    super();
    this.id = 'garcon-status';
  }

  protected render(): JSX.Element {
    return (
      <UseSignal signal={this.state.changed}>
        {() => (
          <button className="grc-status" title="Garçon: open the side bar" onClick={this.open}>
            <garconIcon.react tag="span" />
            {this.words()}
          </button>
        )}
      </UseSignal>
    );
  }

  private words(): JSX.Element {
    const { connected, servers, launches, at } = this.state;
    if (!connected) {
      const n = servers.length;
      const running = `${n} server${n === 1 ? '' : 's'}`;
      return <>{launches.some(launch => launch.state === 'starting') ? 'launching …' : running}</>;
    }
    const { name, state, idle_left } = connected;
    const waiting = connected.waiting.length ? `, ${connected.waiting.length} waiting` : '';
    if (state !== 'idle' || idle_left === null) {
      return <>{`${name}: ${state}${waiting}`}</>;
    }
    return (
      <>
        {name}: idle, ends in <Clock seconds={idle_left} at={at} down />
      </>
    );
  }
}
