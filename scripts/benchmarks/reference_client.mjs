// The reference client under load: node reference_client.mjs URL TOKEN SECONDS. Prints {"connects", "health", ...} per second.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const entry = join(process.env.OPENCLAW_MODULES, "@openclaw", "gateway-client", "dist", "index.mjs");
const { GatewayClient } = await import(pathToFileURL(entry).href);
const [url, token, secondsText] = process.argv.slice(2);
const seconds = Number(secondsText);
const CLIENTS = 10;

const open = () =>
  new Promise((resolve, reject) => {
    const client = new GatewayClient({ url, token, minProtocol: 4, maxProtocol: 4, onHelloOk: () => resolve(client), onConnectError: reject });
    client.start();
  });

async function connects(count) {
  const begin = performance.now();
  for (let done = 0; done < count; done += 8) {
    const clients = await Promise.all(Array.from({ length: 8 }, open));
    for (const client of clients) client.stop();
  }
  return (count * 1000) / (performance.now() - begin);
}

async function rate(clients, method, params, inFlight) {
  const until = performance.now() + seconds * 1000;
  const begin = performance.now();
  let count = 0;
  const one = async (client) => {
    while (performance.now() < until) {
      await client.request(method, params);
      count += 1;
    }
  };
  await Promise.all(clients.flatMap((client) => Array.from({ length: inFlight }, () => one(client))));
  return (count * 1000) / (performance.now() - begin);
}

const result = { connects: await connects(160) };
const clients = await Promise.all(Array.from({ length: CLIENTS }, open));
for (const [name, method, params, inFlight] of [
  ["health", "health", undefined, 1],
  ["node.list", "node.list", {}, 1],
  ["system-presence", "system-presence", undefined, 1],
  ["system-presence x16", "system-presence", undefined, 16],
]) {
  result[name] = await rate(clients, method, params, inFlight);
}
for (const client of clients) client.stop();
console.log(JSON.stringify(result));
process.exit(0);
