// What the servers say of themselves, for the header and the view of nodes: asked every few seconds while
// somebody looks.

import { get, members } from "./members.js";
import { store, led, touch } from "./store.js";

const EVERY_MS = 2_000;
const PATIENCE_MS = 3_000;

async function tried(target, options) {
  try {
    return await get(target, { patience: PATIENCE_MS, ...options });
  } catch {
    return null;
  }
}

/// Asks the server in use for its own state and for what the leader knows of the others.
export async function look() {
  const at = members.current;
  // The leader's answer first: what this server has applied after it is not less.
  const health = store.leader === null ? null : await tried("/v1/operator/autopilot/state", { at });
  const [self, raft, leader] = await Promise.all([
    tried("/v1/agent/self", { at }),
    tried("/v1/operator/raft/configuration?stale", { at }),
    tried("/v1/status/leader", { at }),
  ]);
  if (self === null || raft === null) return;
  // The stream says it too, but not while there is none.
  if (leader !== null) led(leader === "" ? null : (raft.Servers.find((server) => server.Address === leader)?.Node ?? store.leader));
  if (at === members.home) members.callHome(self.DebugConfig.ServerName);
  const servers = Object.values(health?.Servers ?? {});
  const last = Math.max(0, ...servers.map((server) => server.LastIndex));
  const applied = Number(self.Stats.raft?.applied_index ?? Number.NaN);
  const voters = raft.Servers.filter((server) => server.Voter);
  store.cluster = {
    datacenter: self.Config.Datacenter,
    server: self.DebugConfig.ServerName,
    version: self.Meta["quorate-version"] ?? "",
    term: Number(self.Stats.raft?.term ?? Number.NaN),
    applied,
    lag: health === null ? null : Math.max(0, last - applied),
    voters: voters.length,
    answering: health === null ? null : servers.filter((server) => server.Healthy && server.NodeType === "voter").length,
    survivable: health?.FailureTolerance ?? null,
    raft: raft.Servers,
    health: new Map(servers.map((server) => [server.Name, server])),
  };
  touch();
}

/// Looks again and again.
export async function keepLooking() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

/// The quorum in words, and how bad that is.
export function quorum(cluster) {
  if (store.leader === null) return { level: "critical", words: `no leader among ${cluster.voters} voters` };
  if (cluster.answering === null) return { level: "unknown", words: `${cluster.voters} voters` };
  const words = `${cluster.answering} of ${cluster.voters} ${cluster.voters === 1 ? "voter" : "voters"}`;
  if (cluster.survivable > 0) {
    const failures = cluster.survivable === 1 ? "1 failure" : `${cluster.survivable} failures`;
    return { level: cluster.answering < cluster.voters ? "warning" : "passing", words: `${words}, ${failures} survivable` };
  }
  return { level: cluster.voters === 1 ? "unknown" : "warning", words: `${words}, no failure survivable` };
}
