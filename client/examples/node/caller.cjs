// Calls a service at whichever of its instances pass, and follows them with a blocking query.
//
//     npm install consul
//     QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510 node caller.cjs hello 20
"use strict";

const timers = require("node:timers/promises");
const { client, next } = require("./cluster.cjs");

const PAUSE_MS = 50;
const [name = "hello", calls = "20"] = process.argv.slice(2);

/** What passes at present: `host:port` of each. The last good list stays while no server answers. */
let instances = [];

/** Instances that come and go show within milliseconds. */
function follow(index = "0") {
  const options = { service: name, passing: true, index, wait: "60s" };
  const watch = client().watch({ method: client().health.service, options });
  watch.on("change", (rows, answer) => {
    index = answer.headers["x-consul-index"];
    instances = rows.map(({ Node, Service }) => `${Service.Address || Node.Address}:${Service.Port}`);
    console.log(`instances: ${instances.join(" ") || "none"}`);
  });
  watch.on("error", (error) => {
    console.error(`no answer: ${error.message}`);
    watch.end();
    next();
    // An index from one server is good at all others, so the watch goes on where it was.
    setTimeout(() => follow(index), PAUSE_MS);
  });
}

async function main() {
  follow();
  for (let call = 0; call < Number(calls); ) {
    const instance = instances[call % instances.length];
    try {
      if (instance) {
        const answer = await fetch(`http://${instance}/`, { signal: AbortSignal.timeout(2_000) });
        process.stdout.write(await answer.text());
        call++;
      }
    } catch (error) {
      // Not there any more; the cluster will say so in a moment. Until then the others are called.
      instances = instances.filter((other) => other !== instance);
      console.error(`${instance} does not answer: ${error.message}`);
    }
    await timers.setTimeout(PAUSE_MS);
  }
}

main().then(() => process.exit(0));
