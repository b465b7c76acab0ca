// Headless Chromium as every page of these tests has it: quiet, and talking to nobody but the page's server.
const path = require("node:path");
const { chromium } = require(path.join(process.env.OPENCLAW_MODULES, "playwright-core"));

exports.openBrowser = (executablePath) =>
  chromium.launch({
    executablePath,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
  });

// Adds to ``refused``, as they come, why the gateway refused calls of this page.
exports.noteRefusals = (page, refused) => {
  page.on("websocket", (socket) => socket.on("framereceived", (frame) => {
    const message = JSON.parse(frame.payload.toString());
    if (message.type === "res" && !message.ok) refused.push(message.error.message);
  }));
};
