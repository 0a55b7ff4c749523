// An HTTP service that registers itself with the npm package `consul`, shows with heartbeats that it lives, and
// deregisters when it is told to end (SIGINT or SIGTERM).
//
//     npm install consul
//     QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510 node service.cjs hello
//
// `node caller.cjs hello` calls it.
"use strict";

const http = require("node:http");
const { cluster } = require("./cluster.cjs");

const TTL_S = 10;
const name = process.argv[2] ?? "hello";

let id;
const server = http.createServer((_, answer) => answer.end(`hello from ${id}\n`));

// Listen first, register then: whoever finds the service can call it.
server.listen(0, "127.0.0.1", async () => {
  const { port } = server.address();
  id = `${name}-${port}`;
  const check = `service:${id}`;
  const register = () =>
    cluster((consul) =>
      consul.agent.service.register({
        name, id, address: "127.0.0.1", port,
        // As soon as it is registered it can be called.
        check: { ttl: `${TTL_S}s`, status: "passing" },
      }),
    );
  await register();
  console.log(`registered ${id}`);

  const beat = async () => {
    try {
      await cluster((consul) => consul.agent.check.pass(check));
    } catch (error) {
      // Somebody has deregistered it, or a backup from before it was restored.
      if (error.statusCode === 404) await register().catch(() => {});
      else console.error(`no heartbeat: ${error.message}`);
    }
  };
  // Three in a TTL, so two may be lost.
  const beats = setInterval(beat, (TTL_S * 1000) / 3);

  const end = async () => {
    clearInterval(beats);
    // First out of the catalogue, then no more connections: so no caller meets a closed door.
    await cluster((consul) => consul.agent.service.deregister(id));
    console.log("deregistered");
    server.close(() => process.exit(0));
  };
  process.once("SIGINT", end).once("SIGTERM", end);
});
