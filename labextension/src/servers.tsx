/**
 * The running servers, and launches on their way.
 */
import { addIcon, closeIcon, stopIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Actions } from './actions';
import { ILaunch, IServer, IWork } from './answers';
import { clockIcon } from './icons';
import { Clock, IconButton, Section } from './section';
import { answers, State } from './state';
import { count, cut, memory, sessionName, size } from './words';

interface IProps {
  state: State;
  actions: Actions;
}

export function Servers({ state, actions }: IProps): JSX.Element {
  const { servers, launches } = state;
  const none = !servers.length && !launches.length;
  return (
    <Section title="Servers" note={servers.length ? String(servers.length) : ''}>
      {state.problem && <p className="grc-problem">{state.problem}</p>}
      {servers.map(server => (
        <Server key={`${server.name} ${server.supervisor}`} {...{ state, actions, server }} />
      ))}
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

function Server(props: IProps & { server: IServer }): JSX.Element {
  const { state, actions, server } = props;
  const used = memory(server);
  const summary = used === null ? cut(server) : `${cut(server)}, ${size(used)}`;
  const mine = state.connected === server;
  const shown = state.shown === server;
  return (
    <article
      className={`grc-card ${shown ? 'grc-shown' : ''}`}
      aria-label={`Server ${server.name}`}
      onClick={() => state.choose(server.name)}
    >
      <header>
        <span className={`grc-dot grc-${server.state}`} title={server.state} />
        <b title={server.path}>{server.name}</b>
        <IconButton
          icon={clockIcon}
          title={`Keep ${server.name} alive: start its idle time anew`}
          onClick={() => void actions.keepAlive(server)}
        />
        <IconButton
          icon={stopIcon}
          title={`Stop ${server.name}`}
          onClick={() => void actions.stop(server)}
        />
      </header>
      <p>
        {server.model.architecture}, {count(server.model.parameters)}, {server.model.dtype}
      </p>
      {server.ranks.length > 1 ? (
        <details className="grc-ranks">
          <summary>{summary}</summary>
          {ranks(server).map(line => (
            <p key={line}>{line}</p>
          ))}
        </details>
      ) : (
        <p title={ranks(server)[0]}>{summary}</p>
      )}
      <Idle server={server} at={state.at} />
      {server.clients.map(client => (
        <p
          key={client.session}
          className="grc-user"
          title={`session ${client.session}, process ${client.pid} on ${client.host}`}
        >
          {client.user} in <i>{sessionName(client.session)}</i>
        </p>
      ))}
      {server.running && <Work {...props} work={server.running} at={state.at} running />}
      {server.waiting.map(work => (
        <Work key={work.request} {...props} work={work} at={state.at} />
      ))}
      {mine ? (
        <p className="grc-mine">This notebook is connected.</p>
      ) : (
        answers(server) && (
          <button className="grc-button" onClick={() => void actions.connect(server)}>
            {state.notebook.state === 'none' ? 'Open a notebook with it' : 'Connect this notebook'}
          </button>
        )
      )}
    </article>
  );
}

function Idle(props: { server: IServer; at: number }): JSX.Element {
  const { server, at } = props;
  if (!answers(server)) {
    return <p className="grc-problem">{server.problem}</p>;
  }
  const waiting = server.waiting.length ? `, ${server.waiting.length} waiting` : '';
  if (server.state === 'busy') {
    return <p className="grc-doing">busy{waiting}</p>;
  }
  if (server.idle_left === null) {
    return <p className="grc-doing">idle, never ends by itself</p>;
  }
  const soon = server.idle_left < 300 ? 'grc-soon' : '';
  return (
    <p className={`grc-doing ${soon}`}>
      idle, ends in <Clock seconds={server.idle_left} at={at} down />
    </p>
  );
}

function Work(
  props: IProps & { server: IServer; work: IWork; at: number; running?: boolean }
): JSX.Element {
  const { actions, server, work, at, running } = props;
  return (
    <div className="grc-work">
      <span className={running ? 'grc-spinner' : 'grc-waits'} />
      <span className="grc-what" title={`of session ${work.session}`}>
        {work.kind} of <i>{sessionName(work.session)}</i>, <Clock seconds={work.seconds} at={at} />
      </span>
      <IconButton
        icon={closeIcon}
        title={`Cancel this ${work.kind}`}
        onClick={() => void actions.cancel(server, work)}
      />
    </div>
  );
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

/** Where each part of the model is, a line each. */
function ranks(server: IServer): string[] {
  return server.ranks.map(rank => {
    const used = rank.memory ? `, ${size(rank.memory)}` : '';
    return `rank ${rank.rank}: ${rank.device}, process ${rank.pid} on ${rank.host}${used}`;
  });
}
