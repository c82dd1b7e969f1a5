/**
 * The side bar.
 */
import { ReactWidget, UseSignal } from '@jupyterlab/apputils';
import { Message } from '@lumino/messaging';
import { refreshIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Actions } from './actions';
import { garconIcon } from './icons';
import { Jobs } from './jobs';
import { Points } from './points';
import { Recordings } from './recordings';
import { IconButton } from './section';
import { Servers } from './servers';
import { State } from './state';

export class Panel extends ReactWidget {
  static readonly id = 'garcon-side-bar';

  constructor(
    private readonly state: State,
    private readonly actions: Actions
  ) {
    super();
    this.id = Panel.id;
    this.title.icon = garconIcon;
    this.title.caption = 'Garçon: models, jobs, probe points, recordings';
    this.addClass('grc-panel');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Garçon');
  }

  /** Put the cursor into the search for points. */
  focusSearch(): void {
    this.node.querySelector<HTMLInputElement>('.grc-search input')?.focus();
  }

  protected render(): JSX.Element {
    const { state, actions } = this;
    return (
      <UseSignal signal={state.changed}>
        {() => (
          <>
            <header className="grc-head">
              <h2>Garçon</h2>
              <IconButton
                icon={refreshIcon}
                title="Look again now"
                onClick={() => state.refresh()}
              />
            </header>
            <div className="grc-sections">
              <Servers {...{ state, actions }} />
              <Jobs {...{ state, actions }} />
              <Points {...{ state, actions }} />
              <Recordings {...{ state, actions }} />
            </div>
          </>
        )}
      </UseSignal>
    );
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.state.watch(true);
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.state.watch(false);
  }
}
