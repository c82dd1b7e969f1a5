/**
 * What the probes of this notebook have saved. A click shows it.
 */
import * as React from 'react';

import { Actions } from './actions';
import { IRecording } from './answers';
import { onArrows, Section, Shape } from './section';
import { State } from './state';

export function Recordings(props: { state: State; actions: Actions }): JSX.Element {
  const { state, actions } = props;
  const { told } = state.notebook;
  const recordings = told?.recordings ?? [];
  return (
    <Section title="Recordings" note={recordings.length ? String(recordings.length) : ''}>
      <NotebookNote state={state} />
      <div role="list" onKeyDown={onArrows}>
        {recordings.map(recording => (
          <Recording key={`${recording.point} ${recording.name}`} {...{ actions, recording }} />
        ))}
      </div>
    </Section>
  );
}

/** What there is to say instead of recordings, or of how old they are. */
function NotebookNote({ state }: { state: State }): JSX.Element | null {
  const { state: kernel, told } = state.notebook;
  const note = {
    none: 'No notebook is open.',
    foreign: 'The kernel of this notebook is not Python.',
    starting: 'The kernel of this notebook is starting.',
    busy: told ? 'The kernel is busy. This is as of before.' : 'The kernel is busy.',
    ready: ''
  }[kernel];
  if (note) {
    return <p className="grc-hint">{note}</p>;
  }
  if (!told?.model) {
    return <p className="grc-hint">This notebook is not connected to a model.</p>;
  }
  if (!state.connected) {
    return <p className="grc-problem">The server {told.model.server} has ended.</p>;
  }
  if (!told.current) {
    return <p className="grc-hint">Looking for new ones …</p>;
  }
  return told.recordings.length ? null : (
    <p className="grc-hint">Nothing yet. What probes save is listed here.</p>
  );
}

function Recording(props: { actions: Actions; recording: IRecording }): JSX.Element {
  const { actions, recording } = props;
  const { point, name, attributes } = recording;
  return (
    <>
      {attributes.map((attribute, n) => {
        const extents = attribute.shape?.join(' × ') ?? attribute.preview;
        const drawable = Boolean(attribute.shape?.length);
        const show = () =>
          void actions.attempt(() =>
            actions.notebooks.show(recording, attributes.length > 1 ? attribute.name : undefined)
          );
        return (
          <button
            className="grc-row grc-whole grc-recording"
            role="listitem"
            key={attribute.name}
            disabled={!drawable}
            title={drawable ? `Show ${attribute.name} of ${point}` : attribute.preview}
            onClick={show}
          >
            <span className="grc-name">{n === 0 ? point : ''}</span>
            <Shape text={extents} />
            <span className="grc-meaning">
              {attribute.name}
              {name !== null && ` of ${name}`}
              {attribute.dtype && ` · ${attribute.dtype}`}
            </span>
          </button>
        );
      })}
    </>
  );
}
