// Drives the official @openclaw/gateway-client package: node gateway_client.mjs MODE URL TOKEN [TLS_FINGERPRINT]. Prints one JSON line per fact.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.OPENCLAW_MODULES, "x.js"));
const entry = join(process.env.OPENCLAW_MODULES, "@openclaw", "gateway-client", "dist", "index.mjs");
const { GatewayClient } = await import(pathToFileURL(entry).href);
void require;

const [mode, url, token, tlsFingerprint] = process.argv.slice(2);
const say = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);

const make = (extra) =>
  new GatewayClient({
    url,
    token,
    ...(tlsFingerprint ? { tlsFingerprint } : {}),
    minProtocol: 4,
    maxProtocol: 4,
    onEvent: (event) => say({ fact: "event", event: event.event, seq: event.seq, payload: event.payload, stateVersion: event.stateVersion }),
    onGap: (gap) => say({ fact: "gap", gap }),
    onConnectError: (error) => say({ fact: "connect-error", message: String(error.message), details: error.details ?? null }),
    onClose: (code, reason) => say({ fact: "close", code, reason: String(reason) }),
    ...extra,
  });

if (mode === "requests") {
  const client = make({
    onHelloOk: async (hello) => {
      say({ fact: "hello", hello });
      for (const [method, params] of [["health"], ["status", {}], ["system-presence"], ["node.list", {}], ["last-heartbeat"], ["logs.tail", { limit: 5, maxBytes: 20000 }], ["node.pair.list", {}], ["device.pair.list", {}], ["no.such.method", {}], ["node.list", { zzz: 1 }]]) {
        try {
          say({ fact: "reply", method, ok: true, payload: await client.request(method, params) });
        } catch (error) {
          say({ fact: "reply", method, ok: false, code: error.gatewayCode ?? error.code ?? null, message: String(error.message) });
        }
      }
      const many = await Promise.all(Array.from({ length: 200 }, () => client.request("system-presence")));
      say({ fact: "many", count: many.length });
      await client.stopAndWait?.();
      client.stop();
      process.exit(0);
    },
  });
  client.start();
} else if (mode === "wrong-token") {
  const client = make({
    onConnectError: (error) => {
      say({ fact: "connect-error", message: String(error.message), details: error.details ?? null });
      client.stop();
      setTimeout(() => process.exit(0), 100);
    },
  });
  client.start();
} else {
  // watch: stays connected, tells every hello, event and close, until standard input ends.
  const client = make({ onHelloOk: (hello) => say({ fact: "hello", hello }) });
  client.start();
  process.stdin.on("end", () => {
    client.stop();
    process.exit(0);
  });
  process.stdin.resume();
}
