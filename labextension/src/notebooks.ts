/**
 * Cells: what the side bar writes into notebooks.
 */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { NotebookActions, NotebookPanel } from '@jupyterlab/notebook';

import { IRecording } from './answers';
import { State } from './state';
import { quoted } from './words';

const LOAD = '%load_ext garcon_jupyter';

export class Notebooks {
  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly state: State
  ) {}

  /** Connect the notebook in front to a server; without a notebook, open one that is. */
  async connect(server: string): Promise<void> {
    const panel = this.state.kernel.panel;
    if (!panel) {
      await this.create(`%garcon connect ${server}`, '', true);
      return;
    }
    await write(panel, this.connection(server), true);
    this.state.choose(server);
  }

  /**
   * Insert a cell with a probe.
   *
   * @param text - what to run the model on, to show what was recorded; '' for the bare probe.
   * @param run - whether to run the cell at once.
   */
  async probe(point: string, text: string, run: boolean): Promise<void> {
    const panel = await this.connectedPanel();
    const options = text.trim() ? ` --on ${quoted(text)} --show` : '';
    if (panel) {
      await write(panel, `%%probe ${point}${options}\nsave_ctx.tensor = tensor`, run);
    }
  }

  /** Insert a cell that shows a recording, and run it. */
  async show(recording: IRecording, attribute?: string): Promise<void> {
    const panel = this.state.kernel.panel;
    const { point, name } = recording;
    const key = name === null ? text(point) : `(${text(point)}, ${text(name)})`;
    const which = attribute === undefined ? '' : `, attribute=${text(attribute)}`;
    if (panel) {
      await write(panel, `rmodel.show(${key}${which})`, true);
    }
  }

  /**
   * Open a new notebook that launches, or is connected to, a model, and looks into it.
   *
   * @param first - what its first cell does after loading the magics.
   * @param directory - where it is made.
   * @param run - whether to run that cell at once. (Notebook 7 opens it in a window of its own, where it waits.)
   */
  async create(first = '%garcon launch smollm2', directory = '', run = false): Promise<void> {
    const { contents, kernelspecs } = this.app.serviceManager;
    await kernelspecs.ready;
    const name = kernelspecs.specs?.default ?? 'python3';
    const spec = kernelspecs.specs?.kernelspecs[name];
    const { path } = await contents.newUntitled({ path: directory, type: 'notebook' });
    await contents.save(path, {
      type: 'notebook',
      format: 'json',
      content: template(first, { name, display_name: spec?.display_name ?? name })
    });
    const widget = await this.app.commands.execute('docmanager:open', {
      path,
      factory: 'Notebook'
    });
    if (run && widget instanceof NotebookPanel) {
      await Promise.all([widget.context.ready, widget.sessionContext.ready]);
      widget.content.activeCellIndex = 1;
      void NotebookActions.run(widget.content, widget.sessionContext);
    }
  }

  /** The notebook in front, connected to the server whose points are shown. */
  private async connectedPanel(): Promise<NotebookPanel | null> {
    const panel = this.state.kernel.panel;
    if (!panel) {
      Notification.info('Open a notebook first: probes are cells of a notebook.', {
        actions: [{ label: 'New notebook', callback: () => void this.create() }],
        autoClose: 8000
      });
      return null;
    }
    const server = this.state.shown;
    if (server && !this.state.notebook.told?.model) {
      await write(panel, this.connection(server.name), true);
    }
    return panel;
  }

  private connection(server: string): string {
    const line = `%garcon connect ${server}`;
    return this.state.notebook.told?.magics ? line : `${LOAD}\n${line}`;
  }
}

/** A text as Python writes it. */
function text(value: string): string {
  return JSON.stringify(value);
}

/** Write a cell below the active one, or into it where it is empty, and perhaps run it. */
async function write(panel: NotebookPanel, source: string, run: boolean): Promise<void> {
  await panel.context.ready;
  const notebook = panel.content;
  const active = notebook.activeCell?.model;
  if (active?.type !== 'code' || active.sharedModel.getSource().trim()) {
    NotebookActions.insertBelow(notebook);
  }
  notebook.activeCell?.model.sharedModel.setSource(source);
  const { activeCellIndex } = notebook;
  if (notebook.activeCell) {
    void notebook.scrollToItem(activeCellIndex);
  }
  if (run) {
    await panel.sessionContext.ready;
    // Not awaited: it ends with the cell, and the next may be written meanwhile.
    void NotebookActions.run(notebook, panel.sessionContext);
  }
}

function template(first: string, kernelspec: { name: string; display_name: string }) {
  const markdown = (...lines: string[]) => ({
    cell_type: 'markdown',
    id: `garcon-${lines[0].length}-text`,
    metadata: {},
    source: lines.join('\n')
  });
  const code = (id: string, ...lines: string[]) => ({
    cell_type: 'code',
    id: `garcon-${id}`,
    metadata: {},
    execution_count: null,
    outputs: [],
    source: lines.join('\n')
  });
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: { kernelspec: { ...kernelspec, language: 'python' } },
    cells: [
      markdown(
        '# A look into a language model',
        'Run the cells from the top (Shift-Enter). The side bar lists servers and probe points.'
      ),
      code('launch', LOAD, first),
      code(
        'probe',
        '%%probe layers.4.attn.pattern --on "The capital of France is" --show',
        'save_ctx.tensor = tensor'
      ),
      code(
        'generate',
        'rmodel.decode(rmodel.generate("The capital of France is", max_new_tokens=8))'
      )
    ]
  };
}
