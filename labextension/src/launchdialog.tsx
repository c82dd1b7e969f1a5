/**
 * The launch dialog: a model that can be had by one click, and what an expert wants to say.
 */
import { Dialog, ReactWidget, showDialog } from '@jupyterlab/apputils';
import * as React from 'react';

import { IOffer } from './answers';
import { ILaunchWords } from './api';

/** What was chosen: the words of a launch, and whether to connect a notebook when it runs. */
export interface IChosen {
  words: ILaunchWords;
  connect: boolean;
}

/** Ask; null where the person thinks better of it. */
export async function askWhatToLaunch(
  offers: IOffer[],
  hasNotebook: boolean
): Promise<IChosen | null> {
  const body = new LaunchForm(offers, hasNotebook);
  const result = await showDialog({
    title: 'Launch a model',
    body,
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Launch' })],
    focusNodeSelector: '.grc-offer input:checked'
  });
  return result.button.accept ? result.value : null;
}

const OTHER = 'other';

class LaunchForm extends ReactWidget implements Dialog.IBodyWidget<IChosen> {
  constructor(
    private readonly offers: IOffer[],
    private readonly hasNotebook: boolean
  ) {
    super();
    this.addClass('grc-launch');
    this.model = offers[0]?.path ?? OTHER;
  }

  getValue(): IChosen {
    const given = Object.entries(this.given).filter(([, value]) => value.trim() !== '');
    const words = given.map(([word, value]) => [
      word,
      ['tp', 'pp', 'dp'].includes(word) ? Number(value) : value.trim()
    ]);
    const path = this.model === OTHER ? this.other.trim() : this.model;
    return { words: { ...Object.fromEntries(words), path }, connect: this.connect };
  }

  protected render(): JSX.Element {
    return (
      <>
        <fieldset className="grc-offers">
          {this.offers.map(offer => this.offer(offer.path, offer.title, offer.note))}
          {this.offer(OTHER, 'Another model', 'a directory, or a name on the Hugging Face hub')}
          {this.model === OTHER && (
            <input
              className="grc-input grc-other"
              autoFocus
              aria-label="Path or hub name"
              placeholder="EleutherAI/pythia-70m"
              defaultValue={this.other}
              onChange={event => (this.other = event.target.value)}
            />
          )}
        </fieldset>
        <label className="grc-check">
          <input
            type="checkbox"
            defaultChecked={this.connect}
            onChange={event => (this.connect = event.target.checked)}
          />
          {this.hasNotebook
            ? 'Connect this notebook to it'
            : 'Open a notebook that is connected to it'}
        </label>
        <details className="grc-more">
          <summary>More settings</summary>
          <div className="grc-grid">
            {this.text('name', 'Name', 'chosen')}
            {this.choice('idle_timeout', 'Ends when idle for', [
              ['30m', '30 minutes'],
              ['1h', '1 hour'],
              ['4h', '4 hours'],
              ['24h', '1 day'],
              ['never', 'never']
            ])}
            {this.choice('device', 'Device', [
              ['', 'GPUs, where there are some'],
              ['cuda', 'GPUs'],
              ['cpu', 'CPU']
            ])}
            {this.number('tp', 'Tensor parallel')}
            {this.number('pp', 'Pipeline parallel')}
            {this.number('dp', 'Data parallel')}
            {this.choice('dtype', 'Number format', [
              ['', "the model's own"],
              ['float32', 'float32'],
              ['bfloat16', 'bfloat16'],
              ['float16', 'float16']
            ])}
          </div>
        </details>
      </>
    );
  }

  private offer(path: string, title: string, note: string): JSX.Element {
    return (
      <label className="grc-offer" key={path}>
        <input
          type="radio"
          name="grc-model"
          checked={this.model === path}
          onChange={() => {
            this.model = path;
            this.update();
          }}
        />
        <span>
          <b>{title}</b>
          <small>{note}</small>
        </span>
      </label>
    );
  }

  private field(word: string, label: string, input: JSX.Element): JSX.Element {
    return (
      <label key={word}>
        <span>{label}</span>
        {input}
      </label>
    );
  }

  private text(word: string, label: string, placeholder: string): JSX.Element {
    const onChange = (event: React.ChangeEvent<HTMLInputElement>) =>
      (this.given[word] = event.target.value);
    return this.field(
      word,
      label,
      <input className="grc-input" placeholder={placeholder} onChange={onChange} />
    );
  }

  private number(word: string, label: string): JSX.Element {
    const onChange = (event: React.ChangeEvent<HTMLInputElement>) =>
      (this.given[word] = event.target.value);
    return this.field(
      word,
      label,
      <input className="grc-input" type="number" min={1} placeholder="chosen" onChange={onChange} />
    );
  }

  private choice(word: string, label: string, choices: [string, string][]): JSX.Element {
    return this.field(
      word,
      label,
      <select
        className="grc-input"
        defaultValue={this.given[word] ?? ''}
        onChange={event => (this.given[word] = event.target.value)}
      >
        {choices.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    );
  }

  private model: string;
  private other = '';
  private connect = true;
  private readonly given: { [word: string]: string } = { idle_timeout: '1h' };
}
