// telegram-test-api on 127.0.0.1:<port argument>; says "ready" when it listens. Ended by a signal.
const path = require("node:path");
const { TelegramServer } = require(
  path.join(process.env.OPENCLAW_MODULES, "telegram-test-api", "lib", "telegramServer.js"),
);

const server = new TelegramServer({ port: Number(process.argv[2]), host: "127.0.0.1", storeTimeout: 600 });
server.start().then(() => console.log("ready"));
