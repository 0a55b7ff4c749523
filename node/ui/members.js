// The servers of the cluster, and requests to the one that the page uses now.

/// A request that is not answered in this time fails.
import { headers } from "./token.js";

const PATIENCE_MS = 15_000;

/// An answer that is no success, or none at all (`status` 0).
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/// Where the page comes from.
const home = location.origin;

/// The servers that may be asked.
export const members = {
  /// The origin of the server in use.
  current: home,
  home,
  /// Whether the server in use knows a leader, as far as the page has heard.
  hasLeader: true,
  /// Names of servers by origin, in the order in which they are tried.
  names: new Map([[home, location.host]]),

  /// Notes the servers, `[{ name, address }]`, as the catalogue has them.
  learn(servers) {
    const found = servers.filter(({ address }) => /^[\w.:[\]-]+:\d+$/.test(address));
    for (const { name, address } of found) {
      if (name !== this.names.get(home)) this.names.set(`http://${address}`, name);
    }
    const origins = new Set(found.map(({ address }) => `http://${address}`));
    // One that left is not asked any more. The page's own server may be known by another address.
    for (const origin of this.names.keys()) {
      if (found.length > 0 && origin !== home && origin !== this.current && !origins.has(origin)) this.names.delete(origin);
    }
  },

  /// The server with this name; `null`: it is not known where it serves HTTP.
  origin(name) {
    for (const [origin, known] of this.names) if (known === name) return origin;
    return null;
  },

  /// The page's own server has this name: it may have an address that the cluster does not know.
  callHome(name) {
    this.names.set(home, name);
    for (const [origin, known] of this.names) if (known === name && origin !== home) this.names.delete(origin);
  },

  /// What to call a server.
  name(origin) {
    return this.names.get(origin) ?? origin.replace(/^https?:\/\//, "");
  },

  /// The one to try after this one.
  after(origin) {
    const origins = [...this.names.keys()];
    return origins[(origins.indexOf(origin) + 1) % origins.length];
  },
};

/// Builds a path from parts that users wrote.
export const path = (base, ...parts) => base + parts.map(encodeURIComponent).join("/");

/// Keys are paths: their slashes stay.
export const keyPath = (key) => `/v1/kv/${key.split("/").map(encodeURIComponent).join("/")}`;

/// Asks the server in use, or `options.at`. Returns the answer, whatever its status.
export async function send(method, target, options = {}) {
  const { at = members.current, body, patience = PATIENCE_MS } = options;
  try {
    return await fetch(at + target, {
      method, body, headers: headers(), cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(patience),
    });
  } catch (error) {
    const why = error.name === "TimeoutError" ? "did not answer in time" : "cannot be reached";
    throw new Refused(0, `${members.name(at)} ${why}`);
  }
}

/// The same where only success is of use.
export async function ask(method, target, options) {
  const answer = await send(method, target, options);
  if (answer.ok) return answer;
  const text = (await textOf(answer)).trim();
  throw new Refused(answer.status, text === "" ? `status ${answer.status}` : text);
}

/// The JSON of a successful `GET`.
export async function get(target, options) {
  return JSON.parse(await textOf(await ask("GET", target, options)));
}

/// The body of an answer. A server that dies while it sends it is like one that cannot be reached.
export async function textOf(answer) {
  try {
    return await answer.text();
  } catch {
    throw new Refused(0, `${members.name(new URL(answer.url).origin)} did not end its answer`);
  }
}
