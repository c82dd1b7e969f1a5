/**
 * What takes long and needs no notebook: stores being written, shuffles, features, trainings and runs, whoever began them.
 */
import { closeIcon, pauseIcon, runIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { IJob } from './answers';
import { IconButton, Section } from './section';
import { IProps } from './servercard';

export function Jobs({ state, actions }: IProps): JSX.Element | null {
  const { jobs } = state;
  if (!jobs.length) {
    return null;
  }
  return (
    <Section title="Jobs" note={String(jobs.length)}>
      {jobs.map(job => (
        <Job key={job.name} {...{ state, actions, job }} />
      ))}
    </Section>
  );
}

/** What the mark before a job says. */
const MARKS: { [state in IJob['state']]: string } = {
  running: 'grc-spinner',
  pausing: 'grc-waits',
  paused: 'grc-dot grc-gone',
  failed: 'grc-dot grc-silent'
};

function Job({ actions, job }: IProps & { job: IJob }): JSX.Element {
  const { name, title, kind, state, told, fraction } = job;
  const rests = state === 'paused' || state === 'failed';
  return (
    <article className="grc-card grc-job" aria-label={`Job ${name}`}>
      <header>
        <span className={MARKS[state]} title={state} />
        <b title={name}>{title}</b>
        {state === 'running' && (
          <IconButton
            icon={pauseIcon}
            title={`Pause ${title}`}
            onClick={() => void actions.steerJob(job, 'pause')}
          />
        )}
        {rests && (
          <IconButton
            icon={runIcon}
            title={`Go on with ${title}`}
            onClick={() => void actions.steerJob(job, 'resume')}
          />
        )}
        <IconButton
          icon={closeIcon}
          title={`Cancel ${title}`}
          onClick={() => void actions.cancelJob(job)}
        />
      </header>
      <p>
        {kind}, {state}
      </p>
      {fraction !== null && (
        <progress value={fraction} aria-label={`How far ${title} is`}>
          {Math.round(100 * fraction)} %
        </progress>
      )}
      <p className={state === 'failed' ? 'grc-problem' : 'grc-told'}>{told}</p>
    </article>
  );
}
