// A client made from the published .proto files with protobufjs and ws alone: node proto_client.cjs URL TOKEN FOLDER.
// Prints one JSON line.
const path = require("node:path");
const WebSocket = require(path.join(process.env.OPENCLAW_MODULES, "ws"));
const protobuf = require(path.join(process.env.OPENCLAW_MODULES, "protobufjs"));
const [url, token, folder] = process.argv.slice(2);
const root = new protobuf.Root();
root.resolvePath = (_, target) => path.join(folder, target);
root.loadSync("openclaw/v4/frames.proto");
const ClientFrame = root.lookupType("openclaw.v4.ClientFrame");
const ServerFrame = root.lookupType("openclaw.v4.ServerFrame");
const facts = { subprotocol: null, bytes: {}, close: null };
const socket = new WebSocket(url, ["openclaw.v4.proto"]);
const send = (request) => socket.send(ClientFrame.encode(ClientFrame.create({ request })).finish());
const plain = (message) => message.toJSON();

socket.on("open", () => { facts.subprotocol = socket.protocol; });
socket.on("close", (code, reason) => {
  facts.close = [code, reason.toString()];
  console.log(JSON.stringify(facts));
});
socket.on("message", (data, isBinary) => {
  const frame = ServerFrame.decode(data);
  if (frame.event?.event === "connect.challenge") {
    facts.challenge = [isBinary, plain(frame.event.connectChallenge)];
    send({ id: "connect", method: "connect", connect: {
      minProtocol: 4, maxProtocol: 4, role: "operator", scopes: ["operator.read", "operator.write"],
      client: { id: "gateway-client", version: "0.0.0", platform: "linux", mode: "backend" }, auth: { token },
    } });
    return;
  }
  if (frame.event) {
    facts.events = (facts.events ?? []).concat([[frame.event.event, Number(frame.event.seq), frame.event.payload]]);
    return;
  }
  const answer = frame.response;
  facts[answer.id] = plain(answer);
  facts.bytes[answer.id] = data.length;
  if (answer.id === "connect") {
    send({ id: "health", method: "health", json: Buffer.from("{}") });
    send({ id: "logs", method: "logs.tail", logsTail: { limit: 3 } });
    send({ id: "json", method: "node.list" });
    send({ id: "denied", method: "config.set", json: Buffer.from('{"raw":"{}"}') });
    send({ id: "mixed", method: "health", logsTail: { limit: 3 } });
  }
  if (answer.id === "mixed") socket.send("this is no message");
});
setTimeout(() => process.exit(3), 20000).unref();
