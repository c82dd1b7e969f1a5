/**
 * The launch dialog: a model that can be had by one click, and what an expert wants to say.
 */
import { Dialog, ReactWidget, showDialog } from '@jupyterlab/apputils';
import * as React from 'react';

import { IField, IOffer } from './answers';
import { ILaunchWords } from './api';

/** What was chosen: the words of a launch, and whether to connect a notebook when it runs. */
export interface IChosen {
  words: ILaunchWords;
  connect: boolean;
}

/** Ask; null where the person thinks better of it. */
export async function askWhatToLaunch(
  offers: IOffer[],
  fields: IField[],
  hasNotebook: boolean
): Promise<IChosen | null> {
  const body = new LaunchForm(offers, fields, hasNotebook);
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
    private readonly fields: IField[],
    private readonly hasNotebook: boolean
  ) {
    super();
    this.addClass('grc-launch');
    this.model = offers[0]?.path ?? OTHER;
    this.given = Object.fromEntries(fields.map(field => [field.word, field.initial]));
  }

  getValue(): IChosen {
    const filled = this.fields.filter(({ word }) => this.given[word].trim() !== '');
    const words = filled.map(({ word, kind }) => [
      word,
      kind === 'number' ? Number(this.given[word]) : this.given[word].trim()
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
          <div className="grc-grid">{this.fields.map(field => this.field(field))}</div>
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

  private field(field: IField): JSX.Element {
    return (
      <label key={field.word} title={field.meaning}>
        <span>{field.label}</span>
        {field.choices.length > 0 ? this.choice(field) : this.input(field)}
      </label>
    );
  }

  private input({ word, kind, unset }: IField): JSX.Element {
    return (
      <input
        className="grc-input"
        {...(kind === 'number' ? { type: 'number', min: 1 } : {})}
        placeholder={unset}
        defaultValue={this.given[word]}
        onChange={event => (this.given[word] = event.target.value)}
      />
    );
  }

  private choice({ word, choices }: IField): JSX.Element {
    return (
      <select
        className="grc-input"
        defaultValue={this.given[word]}
        onChange={event => (this.given[word] = event.target.value)}
      >
        {choices.map(({ value, text }) => (
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
  private readonly given: { [word: string]: string };
}
