/**
 * What runs: servers, each fleet's together, and launches on their way.
 */
import { addIcon, closeIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Actions } from './actions';
import { ILaunch } from './answers';
import { Fleet } from './fleets';
import { Clock, IconButton, Section } from './section';
import { IProps, ServerCard } from './servercard';
import { State } from './state';

export function Servers({ state, actions }: IProps): JSX.Element {
  const { servers, launches } = state;
  const none = !servers.length && !launches.length;
  return (
    <Section title="Servers" note={servers.length ? String(servers.length) : ''}>
      {state.problem && <p className="grc-problem">{state.problem}</p>}
      {cards(state, actions)}
      {launches.map(launch => (
        <Launch key={launch.id} {...{ actions, launch }} at={state.at} />
      ))}
      {none && state.overview && (
        <p className="grc-hint">
          No model is served. A server keeps one in memory for all your notebooks.
        </p>
      )}
      <button
        className={`grc-button grc-launch-button ${none ? 'grc-main' : ''}`}
        onClick={() => void actions.launch()}
      >
        <addIcon.react tag="span" /> Launch a model…
      </button>
    </Section>
  );
}

/** A card of each server that is in no fleet, and of each fleet, by name as `garcon list` has them. */
function cards(state: State, actions: Actions): JSX.Element[] {
  const { servers, fleets } = state;
  const members = new Set(fleets.flatMap(fleet => fleet.members.map(member => member.server)));
  const found = [
    ...servers
      .filter(server => !members.has(server.name))
      .map(server => ({
        name: server.name,
        card: (
          <ServerCard key={`${server.name} ${server.supervisor}`} {...{ state, actions, server }} />
        )
      })),
    ...fleets.map(fleet => ({
      name: fleet.name,
      card: <Fleet key={`fleet ${fleet.name}`} {...{ state, actions, fleet }} />
    }))
  ];
  return found
    .sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)))
    .map(one => one.card);
}

function Launch(props: { actions: Actions; launch: ILaunch; at: number }): JSX.Element {
  const { actions, launch, at } = props;
  const failed = launch.state === 'failed';
  return (
    <article className="grc-card" aria-label={`Launch of ${launch.path}`}>
      <header>
        {failed ? <span className="grc-dot grc-silent" /> : <span className="grc-spinner" />}
        <b title={launch.path}>{launch.name ?? launch.path.split('/').pop()}</b>
        <IconButton
          icon={closeIcon}
          title={failed ? 'Dismiss' : 'Stop launching'}
          onClick={() => void actions.dismiss(launch)}
        />
      </header>
      {failed ? (
        <>
          <p className="grc-problem">{launch.problem}</p>
          <p>{launch.remedy}</p>
        </>
      ) : (
        <p>
          {launch.lines[launch.lines.length - 1] ?? 'Starting.'} (
          <Clock seconds={launch.seconds} at={at} />)
        </p>
      )}
    </article>
  );
}
