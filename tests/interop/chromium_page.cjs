// Runs a WebSocket session inside a page of headless Chromium: node chromium_page.cjs BROWSER PAGE_URL GATEWAY_URL TOKEN PROFILE.
// Prints {"origin", "steps"}: what happened, in order. playwright-core comes with OpenClaw.
const { openBrowser } = require("./browser.cjs");
const [executablePath, pageUrl, gatewayUrl, token] = process.argv.slice(2);

function session([url, secret]) {
  return new Promise((resolve) => {
    const steps = [];
    const end = () => resolve({ origin: window.origin, steps });
    setTimeout(() => { steps.push("timeout"); end(); }, 8000);
    const socket = new WebSocket(url);
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.event === "connect.challenge") {
        steps.push("challenge");
        const client = { id: "openclaw-control-ui", version: "x", platform: "web", mode: "webchat" };
        const params = { minProtocol: 4, maxProtocol: 4, role: "operator", scopes: ["operator.read"], caps: [], client };
        params.auth = { token: secret, password: secret };
        socket.send(JSON.stringify({ type: "req", id: "1", method: "connect", params }));
      } else if (message.type === "res") {
        steps.push(message.ok ? "hello" : message.error.details.code);
      }
    };
    socket.onerror = () => steps.push("error");
    socket.onclose = (event) => { steps.push(`close ${event.code}`); end(); };
  });
}

(async () => {
  const browser = await openBrowser(executablePath);
  try {
    // Our own answers forbid every connection by their content security policy; here the origin is what is tested.
    const page = await (await browser.newContext({ bypassCSP: true })).newPage();
    await page.goto(pageUrl);
    console.log(JSON.stringify(await page.evaluate(session, [gatewayUrl, token])));
  } finally {
    await browser.close();
  }
})();
