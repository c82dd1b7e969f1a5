/**
 * A fleet: a folder of the servers of its members, or one server that has them in turn.
 */
import { caretDownIcon, caretRightIcon, stopIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { IFleet, IMember, IServer } from './answers';
import { IconButton } from './section';
import { IProps, modelLine, ServerCard } from './servercard';

/** What a fleet does is what the member does that is furthest from idle. */
const STATES: IServer['state'][] = ['silent', 'restarting', 'busy', 'idle'];

export function Fleet(props: IProps & { fleet: IFleet }): JSX.Element | null {
  const [first, ...others] = props.state.living(props.fleet);
  if (!first) {
    return null;
  }
  return props.fleet.in_turn ? (
    <InTurn {...props} server={first} />
  ) : (
    <Folder {...props} living={[first, ...others]} />
  );
}

function Folder(props: IProps & { fleet: IFleet; living: IServer[] }): JSX.Element {
  const { actions, fleet, living } = props;
  const [open, setOpen] = React.useState(true);
  const [unfolded, setUnfolded] = React.useState('');
  const Caret = open ? caretDownIcon.react : caretRightIcon.react;
  const worst = STATES.find(state => living.some(server => server.state === state));
  return (
    <article className="grc-fleet" aria-label={`Fleet ${fleet.name}`}>
      <header>
        <button className="grc-fold" aria-expanded={open} onClick={() => setOpen(!open)}>
          <Caret tag="span" className="grc-caret" />
          <span className={`grc-dot grc-${worst}`} title={worst} />
          <b>{fleet.name}</b>
          <small>
            fleet, {living.length} of {fleet.members.length} run
          </small>
        </button>
        <IconButton
          icon={stopIcon}
          title={`Stop the fleet ${fleet.name}`}
          onClick={() => void actions.stopFleet(fleet)}
        />
      </header>
      {open && <p>{modelLine(living[0])}</p>}
      {open &&
        fleet.members.map(member => (
          <Member
            key={member.label}
            {...props}
            member={member}
            unfolded={unfolded === member.label}
            unfold={() => setUnfolded(unfolded === member.label ? '' : member.label)}
          />
        ))}
    </article>
  );
}

function Member(
  props: IProps & { living: IServer[]; member: IMember; unfolded: boolean; unfold: () => void }
): JSX.Element {
  const { state, actions, living, member, unfolded, unfold } = props;
  const server = living.find(each => each.name === member.server);
  if (!server) {
    return (
      <article className="grc-card" aria-label={`Server ${member.server}`}>
        <header>
          <span className="grc-dot grc-gone" title="does not run" />
          <b title={member.path ?? undefined}>{member.label}</b>
        </header>
        <p>does not run</p>
      </article>
    );
  }
  return (
    <ServerCard
      {...{ state, actions, server }}
      name={member.label}
      path={member.path}
      brief={!unfolded}
      fold={unfold}
    />
  );
}

function InTurn(props: IProps & { fleet: IFleet; server: IServer }): JSX.Element {
  const { state, actions, fleet, server } = props;
  const { name, loaded, members } = fleet;
  return (
    <ServerCard
      {...{ state, actions, server, name }}
      label={`Fleet ${name}`}
      path={members.find(member => member.label === loaded)?.path}
      stop={{ title: `Stop the fleet ${name}`, act: () => void actions.stopFleet(fleet) }}
      hint="While a notebook is connected to it, the weights that are loaded stay."
    >
      <details className="grc-ranks">
        <summary>
          {loaded !== null && (
            <>
              <b>{loaded}</b> is loaded,{' '}
            </>
          )}
          {members.length} in turn
        </summary>
        {members.map(({ label, path }) => (
          <p
            key={label}
            className={label === loaded ? 'grc-loaded' : undefined}
            title={path ?? undefined}
          >
            {label}
          </p>
        ))}
      </details>
    </ServerCard>
  );
}
