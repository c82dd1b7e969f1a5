/**
 * One running server: its model, what it does, who uses it, and what can be done to it.
 */
import { closeIcon, stopIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Actions } from './actions';
import { IServer, IWork } from './answers';
import { clockIcon } from './icons';
import { Clock, IconButton } from './section';
import { answers, State } from './state';
import { count, cut, memory, sessionName, size } from './words';

export interface IProps {
  state: State;
  actions: Actions;
}

export interface ICard {
  server: IServer;
  /** What it is called, where that is not its name. */
  name?: string;
  /** Of its checkpoint, where that is not the one it was launched with. */
  path?: string | null;
  /** What it is to a reader of the screen. */
  label?: string;
  /** Whether its model, its processes and the button that connects are left out. */
  brief?: boolean;
  /** What the square does, where it does not end this server alone. */
  stop?: { title: string; act: () => void };
  /** Show more of it, or less: a click on what is brief, or on the head of what is whole. */
  fold?: () => void;
  /** What the button that connects says when the pointer rests on it. */
  hint?: string;
  /** What stands below its model. */
  children?: React.ReactNode;
}

export function ServerCard(props: IProps & ICard): JSX.Element {
  const { state, actions, server } = props;
  const name = props.name ?? server.name;
  const stop = props.stop ?? {
    title: `Stop ${server.name}`,
    act: () => void actions.stop(server)
  };
  const onClick = () => {
    state.choose(server.name);
    if (props.brief) {
      props.fold?.();
    }
  };
  return (
    <article
      className={`grc-card ${state.shown === server ? 'grc-shown' : ''}`}
      aria-label={props.label ?? `Server ${server.name}`}
      onClick={onClick}
    >
      <header onClick={props.brief ? undefined : props.fold}>
        <span className={`grc-dot grc-${server.state}`} title={server.state} />
        <b title={props.path ?? server.path}>{name}</b>
        <IconButton
          icon={clockIcon}
          title={`Keep ${server.name} alive: start its idle time anew`}
          onClick={() => void actions.keepAlive(server)}
        />
        <IconButton icon={stopIcon} title={stop.title} onClick={stop.act} />
      </header>
      {!props.brief && <Model server={server} />}
      {props.children}
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
      <Connection {...props} />
    </article>
  );
}

/** What a server has, and where. */
function Model({ server }: { server: IServer }): JSX.Element {
  const used = memory(server);
  const summary = used === null ? cut(server) : `${cut(server)}, ${size(used)}`;
  return (
    <>
      <p>{modelLine(server)}</p>
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
    </>
  );
}

/** Whether the notebook in front is connected to a server, or how it would be. */
function Connection(props: IProps & ICard): JSX.Element | null {
  const { state, actions, server, brief, hint } = props;
  if (state.connected === server) {
    return <p className="grc-mine">This notebook is connected.</p>;
  }
  if (brief || !answers(server)) {
    return null;
  }
  return (
    <button className="grc-button" title={hint} onClick={() => void actions.connect(server)}>
      {state.notebook.state === 'none' ? 'Open a notebook with it' : 'Connect this notebook'}
    </button>
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

/** A served model in one line. */
export function modelLine(server: IServer): string {
  const { architecture, parameters, dtype } = server.model;
  return `${architecture}, ${count(parameters)}, ${dtype}`;
}

/** Where each part of the model is, a line each. */
function ranks(server: IServer): string[] {
  return server.ranks.map(rank => {
    const used = rank.memory ? `, ${size(rank.memory)}` : '';
    return `rank ${rank.rank}: ${rank.device}, process ${rank.pid} on ${rank.host}${used}`;
  });
}
