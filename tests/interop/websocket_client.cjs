// Node's own `ws` as a raw client: node websocket_client.cjs URL TOKEN. Prints one JSON line.
const path = require("node:path");
const WebSocket = require(path.join(process.env.OPENCLAW_MODULES, "ws"));
const [url, token] = process.argv.slice(2);
const socket = new WebSocket(url, { perMessageDeflate: true });
const facts = { extensions: null, pong: null, replies: [], close: null };
const call = (id, method, params) => JSON.stringify({ type: "req", id, method, params });
const client = { id: "gateway-client", version: "0.0.0", platform: "linux", mode: "backend" };
const params = { minProtocol: 4, maxProtocol: 4, client, role: "operator", scopes: ["operator.read"], caps: [], auth: { token } };

socket.on("open", () => { facts.extensions = socket.extensions; });
socket.on("pong", (data) => { facts.pong = data.toString(); });
socket.on("close", (code, reason) => {
  facts.close = [code, reason.toString()];
  console.log(JSON.stringify(facts));
});
socket.on("message", (data) => {
  const message = JSON.parse(data.toString());
  if (message.event === "connect.challenge") socket.send(call("connect", "connect", params));
  if (message.type !== "res") return;
  facts.replies.push([message.id, message.ok]);
  if (message.id === "connect") {
    socket.ping("are you there");
    const text = call("ünïcode", "health");
    for (let at = 0; at < text.length; at += 7) socket.send(text.slice(at, at + 7), { fin: at + 7 >= text.length });
    socket.send(Buffer.from(call("binary", "health")), { binary: true });
    socket.send(call("denied", "config.set", { raw: "{}" }));
  }
  if (facts.replies.length === 4) socket.close(1000, "done");
});
setTimeout(() => process.exit(3), 20000).unref();
