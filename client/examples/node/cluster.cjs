// Several servers as one: a call goes to the one that answered last, and to the next one if it does not answer.
"use strict";

const Consul = require("consul");

const addresses = (process.env.QUORATE_HTTP_ADDR ?? "http://127.0.0.1:8500").split(",");
const clients = addresses.map((address) => new Consul({ baseUrl: `${address}/v1` }));
let current = 0;

/** The server that answered last. */
const client = () => clients[current];

/** Goes on to the next server. */
const next = () => (current = (current + 1) % clients.length);

/**
 * Makes a call that may be made twice, such as a registration, a heartbeat or a read. Whatever has a status below 500 is
 * an answer; everything else is tried at the next server.
 */
async function cluster(call) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call(client());
    } catch (error) {
      if (error.statusCode < 500 || attempt === clients.length) throw error;
      next();
    }
  }
}

module.exports = { cluster, client, next };
