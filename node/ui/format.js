// Times, durations, sizes and counts, as people read them.

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "2-digit", day: "2-digit" });
const number = new Intl.NumberFormat("en-GB");

/// A count, with separators.
export const count = (value) => (Number.isFinite(value) ? number.format(value) : "–");

/// What a text is sorted by: as people do, so that `web-2` comes before `web-10`.
export const natural = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(8, "0"));

/// "1 instance", "2 instances".
export const plural = (value, word, words = `${word}s`) => `${count(value)} ${value === 1 ? word : words}`;

/// A span of time in two units at most: "12 s", "3 m 04 s", "2 h 11 m", "3 d 4 h".
export function span(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 0) return "0 s";
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} m ${two((ms % MINUTE) / SECOND)} s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h ${two((ms % HOUR) / MINUTE)} m`;
  return `${Math.floor(ms / DAY)} d ${Math.floor((ms % DAY) / HOUR)} h`;
}

const UNITS = { h: HOUR, m: MINUTE, s: SECOND, ms: 1, "µs": 0.001, us: 0.001, ns: 0.000_001 };

/// Milliseconds of a duration as the API writes it ("1m30s", "250ms", "0s"); `null`: there is none.
export function milliseconds(text) {
  if (typeof text === "number") return text;
  if (!text) return null;
  let total = 0;
  let rest = text;
  while (rest !== "") {
    const part = /^(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)/.exec(rest);
    if (part === null) return null;
    total += Number(part[1]) * UNITS[part[2]];
    rest = rest.slice(part[0].length);
  }
  return total;
}

/// Bytes: "812 B", "3.4 KiB".
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let scaled = value;
  let unit = "";
  for (unit of units) {
    scaled /= 1024;
    if (scaled < 1024) break;
  }
  return `${scaled < 10 ? scaled.toFixed(1) : Math.round(scaled)} ${unit}`;
}

/// Address and port, as a client would write them.
export function place({ Address, Port }) {
  if (!Address) return "-";
  const host = Address.includes(":") ? `[${Address}]` : Address;
  return Port > 0 ? `${host}:${Port}` : host;
}

/// A moment in the viewer's zone: the time alone if it is today.
export function local(date) {
  if (Number.isNaN(date.getTime())) return "–";
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}

/// The same moment in UTC, for the pointer that rests on it.
export const utc = (date) => (Number.isNaN(date.getTime()) ? "" : `${date.toISOString().replace("T", " ").replace("Z", "")} UTC`);

/// Makes a `time` element show this moment (RFC 3339, or a `Date`).
export function setTime(element, at) {
  const date = at instanceof Date ? at : new Date(at);
  const title = utc(date);
  if (element.title === title) return;
  element.title = title;
  element.dateTime = title === "" ? "" : date.toISOString();
  element.textContent = local(date);
}

/// A `time` element.
export function timeOf(at) {
  const element = document.createElement("time");
  setTime(element, at);
  return element;
}
