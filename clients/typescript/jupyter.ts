/**
 * Asks the same operations from an extension of JupyterLab, over its own connection: cookies, XSRF and base URL are Jupyter's.
 *
 *   import { ServerConnection } from '@jupyterlab/services';
 *   const ask = throughJupyter(ServerConnection, 'smollm2');
 */
import { asking, type Ask } from './client.js';

/** What of `ServerConnection` of `@jupyterlab/services` is used; the package itself is not needed here. */
export interface Connection<Settings extends { readonly baseUrl: string }> {
  makeSettings(): Settings;
  makeRequest(url: string, init: RequestInit, settings: Settings): Promise<Response>;
}

/**
 * The model of a server, by the routes of Garçon's Jupyter server extension.
 *
 * @param connection the namespace `ServerConnection`
 * @param server its name, as the side bar and `garcon list` have it
 * @param settings of the application; by default those of the page
 */
export function throughJupyter<Settings extends { readonly baseUrl: string }>(
  connection: Connection<Settings>,
  server: string,
  settings: Settings = connection.makeSettings()
): Ask {
  const base = `${settings.baseUrl.replace(/\/+$/, '')}/garcon/servers/${encodeURIComponent(server)}/v1/`;
  return asking((operation, init) =>
    connection.makeRequest(base + operation, init, settings)
  );
}
