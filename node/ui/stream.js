// Follows `/v1/quorate/stream`, at one server after the other, from the last record that was seen.

import { members } from "./members.js";
import { headers } from "./token.js";

/// A server says something every 5 s; one that is silent for longer is given up.
const SILENCE_MS = 12_000;
/// A server that does not begin to answer in this time is given up. It may wait for a leader.
const BEGIN_MS = 9_000;
/// Waits between rounds in which no server answered.
const WAIT_MS_MIN = 1_000;
const WAIT_MS_MAX = 5_000;
/// How often heartbeats are sent.
const BEATS = "2s";

/// A stream that goes on until it is replaced.
export class Stream {
  /// `query`: what it follows, as URL parameters. `told` gets each frame as `(event, data)`,
  /// `changed` the state: `{ kind: "connecting" | "live" | "waiting", at, until, why }`.
  /// `last`: the record after which it begins; `beats`: whether heartbeats are of use.
  constructor(query, told, changed, { last = null, beats = true } = {}) {
    Object.assign(this, { query, told, changed, last, beats });
    this.aborter = new AbortController();
    this.run();
  }

  /// Ends it.
  close() {
    this.aborter.abort();
  }

  get ended() {
    return this.aborter.signal.aborted;
  }

  async run() {
    let failed = 0;
    while (!this.ended) {
      const at = members.current;
      const outcome = await this.follow(at);
      if (this.ended) return;
      if (outcome.again) continue;
      failed = outcome.opened ? 1 : failed + 1;
      members.current = members.after(at);
      const rounds = Math.floor(failed / members.names.size);
      const wait = outcome.wait ?? (rounds === 0 ? 0 : Math.min(WAIT_MS_MIN * 2 ** (rounds - 1), WAIT_MS_MAX));
      if (wait > 0) {
        this.changed({ kind: "waiting", at: members.current, until: Date.now() + wait, why: outcome.why });
        await this.pause(wait);
      }
    }
  }

  /// Reads one server's stream to its end, and says why it ended.
  async follow(at) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    this.aborter.signal.addEventListener("abort", stop);
    let timer = setTimeout(stop, BEGIN_MS);
    let opened = false;
    const outcome = { opened: false, why: `${members.name(at)} ended the stream` };
    this.changed({ kind: "connecting", at });
    try {
      const answer = await fetch(at + this.target(), { headers: headers(), cache: "no-store", credentials: "omit", signal: cut.signal });
      if (answer.status === 400 && this.beats) {
        // It sends no heartbeats, or there are too many instances for that.
        this.beats = false;
        return { again: true };
      }
      if (answer.status >= 500 && members.hasLeader) {
        // Without a leader, the server still shows what it has.
        const text = (await answer.text()).trim();
        members.hasLeader = !text.startsWith("No cluster leader");
        return members.hasLeader ? { opened, why: `${members.name(at)}: ${text.slice(0, 200)}` } : { again: true };
      }
      if (!answer.ok) return { opened, why: `${members.name(at)}: ${(await answer.text()).trim().slice(0, 200)}` };
      opened = true;
      outcome.opened = true;
      this.changed({ kind: "live", at });
      for await (const { event, id, data } of frames(answer.body, () => {
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MS);
      })) {
        if (this.ended) return outcome;
        if (id !== null) this.last = id;
        if (event === "moved") {
          outcome.wait = data.RetryMs;
          outcome.why = `${members.name(at)} is stopping`;
        }
        if (event === "gap" || event === "restored") this.last = null;
        this.told(event, data);
      }
    } catch (error) {
      outcome.why = `${members.name(at)} ${cut.signal.aborted ? "is silent" : "cannot be reached"}`;
    } finally {
      clearTimeout(timer);
      this.aborter.signal.removeEventListener("abort", stop);
      cut.abort();
    }
    return outcome;
  }

  target() {
    const query = new URLSearchParams(this.query);
    if (this.beats) query.set("beats", BEATS);
    if (this.last !== null) query.set("since", this.last);
    if (!members.hasLeader) query.set("stale", "");
    return `/v1/quorate/stream?${query}`;
  }

  pause(ms) {
    return new Promise((done) => {
      setTimeout(done, ms);
      this.aborter.signal.addEventListener("abort", done, { once: true });
    });
  }
}

/// Reads frames of `text/event-stream` as they come; `heard` is called for every piece.
async function* frames(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    text += value;
    let end = text.indexOf("\n\n");
    while (end >= 0) {
      const frame = parse(text.slice(0, end));
      text = text.slice(end + 2);
      if (frame !== null) yield frame;
      end = text.indexOf("\n\n");
    }
  }
}

function parse(text) {
  const frame = { event: "", id: null, data: null };
  for (const line of text.split("\n")) {
    const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()];
    if (name === "event") frame.event = value;
    else if (name === "id") frame.id = Number(value);
    else if (name === "data") frame.data = JSON.parse(value);
  }
  return frame.event === "" ? null : frame;
}
