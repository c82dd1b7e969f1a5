/**
 * Small parts of which the panel is made.
 */
import { caretDownIcon, caretRightIcon, LabIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { duration } from './words';

/** A part of the panel with a title that folds it. */
export function Section(props: {
  title: string;
  note?: string;
  children: React.ReactNode;
}): JSX.Element {
  const [open, setOpen] = React.useState(true);
  const Caret = open ? caretDownIcon.react : caretRightIcon.react;
  return (
    <section className="grc-section" aria-label={props.title}>
      <button className="grc-title" aria-expanded={open} onClick={() => setOpen(!open)}>
        <Caret tag="span" className="grc-caret" />
        <h3>{props.title}</h3>
        {props.note && <small>{props.note}</small>}
      </button>
      {open && <div className="grc-body">{props.children}</div>}
    </section>
  );
}

/** A button that is an icon. */
export function IconButton(props: {
  icon: LabIcon;
  title: string;
  onClick: () => void;
}): JSX.Element {
  const onClick = (event: React.MouseEvent) => {
    event.stopPropagation();
    props.onClick();
  };
  return (
    <button className="grc-icon" title={props.title} aria-label={props.title} onClick={onClick}>
      <props.icon.react tag="span" />
    </button>
  );
}

/** Seconds that run, up or down, from what they were at some time. */
export function Clock(props: { seconds: number; at: number; down?: boolean }): JSX.Element {
  const [now, setNow] = React.useState(Date.now());
  React.useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, []);
  const passed = Math.max(0, now - props.at) / 1000;
  return <>{duration(props.seconds + (props.down ? -passed : passed))}</>;
}

/** A shape, small, at the end of a row. */
export function Shape(props: { text: string }): JSX.Element {
  return <code className="grc-shape">{props.text}</code>;
}

/** Move the focus among the rows of a list or tree by the arrow keys. */
export function onArrows(event: React.KeyboardEvent<HTMLElement>): void {
  const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  if (step) {
    const rows = Array.from(event.currentTarget.querySelectorAll<HTMLElement>('.grc-row'));
    const here = rows.findIndex(row => row.contains(document.activeElement));
    rows[Math.min(rows.length - 1, Math.max(0, here + step))]?.focus();
    event.preventDefault();
  }
}
