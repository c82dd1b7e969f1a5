/**
 * Garçon in JupyterLab 4 and Notebook 7: the side bar, its commands, an item in the status bar, a card in the launcher.
 */
import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { IMainMenu } from '@jupyterlab/mainmenu';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';

import { Actions } from './actions';
import { Api } from './api';
import { garconIcon, garconImage } from './icons';
import { KernelWatch } from './kernel';
import { Notebooks } from './notebooks';
import { Panel } from './panel';
import { State } from './state';
import { StatusItem } from './statusitem';

namespace CommandIDs {
  export const open = 'garcon:open';
  export const search = 'garcon:search';
  export const launch = 'garcon:launch';
  export const stop = 'garcon:stop';
  export const keepAlive = 'garcon:keep-alive';
  export const connect = 'garcon:connect';
  export const create = 'garcon:new-notebook';
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'garcon-jupyter:side-bar',
  description: 'Servers of language models, their probe points, and recordings.',
  autoStart: true,
  optional: [INotebookTracker, ICommandPalette, ILauncher, IMainMenu, IStatusBar, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    menu: IMainMenu | null,
    statusBar: IStatusBar | null,
    restorer: ILayoutRestorer | null
  ) => {
    const api = new Api(app.serviceManager.serverSettings);
    const state = new State(api, new KernelWatch(tracker));
    const actions = new Actions(state, new Notebooks(app, state));
    const panel = new Panel(state, actions);
    app.shell.add(panel, 'left', { rank: 600, type: 'Garçon' });
    restorer?.add(panel, panel.id);
    addCommands(app, state, actions, panel);

    for (const command of Object.values(CommandIDs)) {
      palette?.addItem({ command, category: 'Garçon', args: { isPalette: true } });
    }
    menu?.viewMenu.addGroup([{ command: CommandIDs.open }], 20);
    launcher?.add({
      command: CommandIDs.create,
      category: 'Notebook',
      rank: 1,
      kernelIconUrl: garconImage
    });
    if (statusBar) {
      const item = new StatusItem(state, () => app.shell.activateById(Panel.id));
      statusBar.registerStatusItem('garcon:status', {
        item,
        align: 'right',
        rank: 50,
        isActive: () => state.servers.length + state.launches.length > 0,
        activeStateChanged: state.changed
      });
    }
  }
};

function addCommands(app: JupyterFrontEnd, state: State, actions: Actions, panel: Panel): void {
  const { commands } = app;
  const open = () => app.shell.activateById(Panel.id);
  const isConnected = () => state.connected !== null;
  commands.addCommand(CommandIDs.open, {
    label: args => (args['isPalette'] ? 'Show the Side Bar' : 'Garçon'),
    execute: open
  });
  commands.addCommand(CommandIDs.search, {
    label: 'Search Probe Points',
    execute: () => {
      open();
      panel.focusSearch();
    }
  });
  commands.addCommand(CommandIDs.launch, {
    label: 'Launch a Model…',
    execute: () => actions.launch()
  });
  commands.addCommand(CommandIDs.stop, {
    label: 'Stop the Server of This Notebook…',
    isEnabled: isConnected,
    execute: () => state.connected && actions.stop(state.connected)
  });
  commands.addCommand(CommandIDs.keepAlive, {
    label: 'Keep the Server of This Notebook Alive',
    isEnabled: isConnected,
    execute: () => state.connected && actions.keepAlive(state.connected)
  });
  commands.addCommand(CommandIDs.connect, {
    label: 'Connect This Notebook to the Server Shown',
    isEnabled: () => state.shown !== null && !isConnected(),
    execute: () => state.shown && actions.connect(state.shown)
  });
  commands.addCommand(CommandIDs.create, {
    label: args => (args['isPalette'] ? 'New Garçon Notebook' : 'Garçon'),
    caption: 'A notebook that launches a model and looks into it',
    icon: args => (args['isPalette'] ? undefined : garconIcon),
    execute: args => actions.notebooks.create(undefined, `${args['cwd'] ?? ''}`)
  });
  state.changed.connect(() => commands.notifyCommandChanged());
}

export default plugin;
