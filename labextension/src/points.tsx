/**
 * The probe points of a model as a tree: what there is before the layers, each layer, and what comes after.
 *
 * A click inserts a cell, the eye also runs it, and a row can be dragged into a cell as its name.
 */
import { caretDownIcon, caretRightIcon, closeIcon, searchIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Actions } from './actions';
import { ICatalog, IDictionary, IPointRow } from './answers';
import { eyeIcon } from './icons';
import { IconButton, onArrows, Section, Shape } from './section';
import { State } from './state';
import { fill, shape, size } from './words';

/** Most points that a search lists. */
const MOST = 150;

/** A point, or a pattern over all layers, as the tree shows it. */
export interface IPoint {
  name: string;
  row: IPointRow;
}

type Layer = number | '*';

/** The points of a layer, or, for "*", patterns over all layers. */
export function inLayer(catalog: ICatalog, layer: Layer): IPoint[] {
  return catalog.points
    .filter(row => row.layers && (layer === '*' || row.layers.includes(layer)))
    .map(row => ({ name: fill(row, layer), row }));
}

/** The points of a dictionary. */
export function ofDictionary(dictionary: IDictionary): IPoint[] {
  return dictionary.points.map(({ point, shape, what }) => ({
    name: point,
    row: { template: point, shape, layers: null, what, lazy: true }
  }));
}

/** The points whose name or meaning has all of the words; names of all layers first, then each layer's, then dictionaries'. */
export function search(
  catalog: ICatalog,
  words: string,
  dictionaries: IDictionary[] = []
): IPoint[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const layers: Layer[] = ['*', ...Array.from({ length: catalog.n_layers }, (_, n) => n)];
  const outside = catalog.points.filter(row => !row.layers);
  const all = outside.map(row => ({ name: row.template, row }));
  const inLayers = layers.flatMap(layer => inLayer(catalog, layer));
  return [...all, ...inLayers, ...dictionaries.flatMap(ofDictionary)].filter(({ name, row }) =>
    wanted.every(word => name.toLowerCase().includes(word) || row.what.toLowerCase().includes(word))
  );
}

interface IProps {
  state: State;
  actions: Actions;
}

export function Points({ state, actions }: IProps): JSX.Element {
  const { shown, catalog } = state;
  const [words, setWords] = React.useState('');
  const [text, setText] = React.useState('The capital of France is');
  if (!shown || !catalog) {
    const why = shown ? 'They are on their way.' : 'A running server brings them.';
    return (
      <Section title="Probe points">
        <p className="grc-hint">{why}</p>
      </Section>
    );
  }
  const probed = new Set(state.notebook.told?.probes.map(probe => probe.point));
  const dictionaries = state.connected ? (state.notebook.told?.dictionaries ?? []) : [];
  const tree = { catalog, dictionaries, probed, actions, text };
  const isNew = !probed.size && !state.notebook.told?.recordings.length;
  return (
    <Section title="Probe points" note={`of ${shown.name}`}>
      <div className="grc-search">
        <searchIcon.react tag="span" />
        <input
          className="grc-input"
          type="search"
          placeholder="Search, such as: pattern 4"
          aria-label="Search probe points"
          value={words}
          onChange={event => setWords(event.target.value)}
        />
        {words && <IconButton icon={closeIcon} title="Show all" onClick={() => setWords('')} />}
      </div>
      {isNew && (
        <p className="grc-hint">
          The eye shows a point: a cell with a probe is written and run. A click on the name only
          writes it.
        </p>
      )}
      <div className="grc-tree" role="tree" aria-label="Probe points" onKeyDown={onArrows}>
        {words.trim() ? <Found {...tree} words={words} /> : <Tree {...tree} />}
      </div>
      <label className="grc-text">
        <span>Cells run on</span>
        <input
          className="grc-input"
          value={text}
          placeholder="nothing: they only attach the probe"
          aria-label="Text that inserted cells run on"
          onChange={event => setText(event.target.value)}
        />
      </label>
    </Section>
  );
}

interface ITree {
  catalog: ICatalog;
  /** Those that the notebook knows of, where it is connected to the server that is shown. */
  dictionaries: IDictionary[];
  probed: Set<string>;
  actions: Actions;
  text: string;
}

function Found(props: ITree & { words: string }): JSX.Element {
  const found = search(props.catalog, props.words, props.dictionaries);
  if (!found.length) {
    return <p className="grc-hint">No point has all of these words.</p>;
  }
  return (
    <>
      {found.slice(0, MOST).map(point => (
        <Point key={point.name} {...props} point={point} label={point.name} whole />
      ))}
      {found.length > MOST && <p className="grc-hint">And {found.length - MOST} more.</p>}
    </>
  );
}

function Tree(props: ITree): JSX.Element {
  const { catalog } = props;
  const first = catalog.points.findIndex(row => row.layers);
  const outside = (rows: IPointRow[]) =>
    rows
      .filter(row => !row.layers)
      .map(row => (
        <Point
          key={row.template}
          {...props}
          point={{ name: row.template, row }}
          label={row.template}
        />
      ));
  return (
    <>
      {outside(catalog.points.slice(0, first))}
      {catalog.n_layers > 1 && <LayerNode {...props} layer="*" />}
      {Array.from({ length: catalog.n_layers }, (_, layer) => (
        <LayerNode key={layer} {...props} layer={layer} />
      ))}
      {outside(catalog.points.slice(first))}
      {props.dictionaries.map(dictionary => (
        <DictionaryNode key={dictionary.name} {...props} dictionary={dictionary} />
      ))}
    </>
  );
}

function LayerNode(props: ITree & { layer: Layer }): JSX.Element {
  const { catalog, layer, probed } = props;
  const [open, setOpen] = React.useState(false);
  const Caret = open ? caretDownIcon.react : caretRightIcon.react;
  const stem = `layers.${layer}.`;
  const n = Array.from(probed).filter(name => name.startsWith(stem)).length;
  const onKeyDown = (event: React.KeyboardEvent) => {
    if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      setOpen(event.key === 'ArrowRight');
    }
  };
  return (
    <div role="treeitem" aria-expanded={open} aria-label={`layers.${layer}`}>
      <button className="grc-row" onClick={() => setOpen(!open)} onKeyDown={onKeyDown}>
        <Caret tag="span" className="grc-caret" />
        <span className="grc-name">{layer === '*' ? 'every layer' : `layer ${layer}`}</span>
        {n > 0 && <span className="grc-badge">{n} probed</span>}
      </button>
      {open && (
        <div role="group" className="grc-group">
          {inLayer(catalog, layer).map(point => (
            <Point
              key={point.name}
              {...props}
              point={point}
              label={point.name.slice(stem.length)}
            />
          ))}
        </div>
      )}
    </div>
  );
}

/** A dictionary: its name, width and memory, what it is and where; below it its points. */
function DictionaryNode(props: ITree & { dictionary: IDictionary }): JSX.Element {
  const { dictionary, probed } = props;
  const { name, kind, latents, where, formula, path } = dictionary;
  const [open, setOpen] = React.useState(false);
  const Caret = open ? caretDownIcon.react : caretRightIcon.react;
  const points = ofDictionary(dictionary);
  const n = points.filter(point => probed.has(point.name)).length;
  const several = points.filter(point => point.name.endsWith('.latents')).length > 1;
  const memory = dictionary.bytes === null ? '' : ` · ${size(dictionary.bytes)}`;
  const onKeyDown = (event: React.KeyboardEvent) => {
    if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      setOpen(event.key === 'ArrowRight');
    }
  };
  return (
    <div role="treeitem" aria-expanded={open} aria-label={`dictionary ${name}`}>
      <button
        className="grc-row grc-dictionary"
        title={`${kind} at ${where}\n${formula}\n${path}`}
        onClick={() => setOpen(!open)}
        onKeyDown={onKeyDown}
      >
        <Caret tag="span" className="grc-caret" />
        <span className="grc-name">{name}</span>
        {n > 0 && <span className="grc-badge">{n} probed</span>}
        <Shape text={`${latents.toLocaleString('en')} latents`} />
        <span className="grc-meaning">{`${kind} · ${where}${memory}`}</span>
      </button>
      {open && (
        <div role="group" className="grc-group">
          {points.map(point => (
            <Point
              key={point.name}
              {...props}
              point={point}
              label={several ? point.name : point.name.slice(point.name.lastIndexOf('.') + 1)}
            />
          ))}
        </div>
      )}
    </div>
  );
}

function Point(props: ITree & { point: IPoint; label: string; whole?: boolean }): JSX.Element {
  const { point, label, whole, probed, actions, text } = props;
  const { name, row } = point;
  const insert = (run: boolean) =>
    void actions.attempt(() => actions.notebooks.probe(name, text, run));
  const onDragStart = (event: React.DragEvent) => {
    event.dataTransfer.setData('text/plain', name);
    event.dataTransfer.effectAllowed = 'copy';
  };
  const isProbed = probed.has(name);
  const title = `${name}\n${row.what}${row.lazy ? ' (computed only when probed)' : ''}`;
  return (
    <div className="grc-point" role="treeitem" aria-label={name}>
      <button
        className={`grc-row ${isProbed ? 'grc-probed' : ''} ${whole ? 'grc-whole' : ''}`}
        title={`${title}\n\nClick: insert a %%probe cell. Drag: its name.`}
        draggable
        onDragStart={onDragStart}
        onClick={() => insert(false)}
      >
        <span className="grc-name">{label}</span>
        <Shape text={shape(row)} />
        <span className="grc-meaning">{isProbed ? `probed · ${row.what}` : row.what}</span>
      </button>
      {text.trim() && (
        <IconButton icon={eyeIcon} title={`Show ${name}`} onClick={() => insert(true)} />
      )}
    </div>
  );
}
