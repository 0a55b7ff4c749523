// How bad an instance's state is: by what the cluster says, and by the age of its last heartbeat.

import { milliseconds } from "./format.js";

/// Where a row has no limits of its own. They colour its age and do not touch its state: the cluster may know
/// a much longer one.
const WARN_MS = 30_000;
const CRITICAL_MS = 90_000;

/// Levels, the worst one last.
export const LEVELS = ["passing", "warning", "critical"];

/// How bad a level is.
export const badness = (level) => LEVELS.indexOf(level);

/// A row's limits, in milliseconds.
export function limits(row) {
  const critical = milliseconds(row.CriticalAfter);
  const warn = milliseconds(row.WarnAfter);
  if (critical === null && warn === null) return { warn: WARN_MS, critical: CRITICAL_MS, own: false };
  return { warn: warn > 0 ? warn : Infinity, critical: critical > 0 ? critical : Infinity, own: true };
}

/// The level of a heartbeat of this age.
export function ageLevel(age, { warn, critical }) {
  if (age === null) return "unknown";
  if (age >= critical) return "critical";
  return age >= warn ? "warning" : "passing";
}

/// An instance's level: silence may be seen here before the cluster says so.
export function judge(status, age, limits) {
  if (limits.own && age !== null) {
    const silent = ageLevel(age, limits);
    if (badness(silent) > badness(status)) return silent;
  }
  return badness(status) < 0 ? "unknown" : status;
}

/// The word for a level that comes from silence alone.
export const SILENT = { warning: "late", critical: "silent" };
