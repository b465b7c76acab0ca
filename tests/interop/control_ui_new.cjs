// A new conversation in the official Control UI, and its address opened again: node control_ui_new.cjs BROWSER URL TOKEN.
// Prints {"created", "address", "again", "refused"}: the key of sessions.create, where the page went, what it shows there after a reload.
const { noteRefusals, openBrowser } = require("./browser.cjs");
const [executablePath, url, token] = process.argv.slice(2);
const said = "a fresh plan, echo";
const answered = (text) => document.body.innerText.split(text).length > 2;

(async () => {
  const browser = await openBrowser(executablePath);
  const asked = {};
  const refused = [];
  let created = null;
  try {
    const page = await (await browser.newContext({ viewport: { width: 1300, height: 850 } })).newPage();
    page.setDefaultTimeout(30000);
    noteRefusals(page, refused);
    page.on("websocket", (socket) => {
      socket.on("framesent", (frame) => {
        const message = JSON.parse(frame.payload.toString());
        if (message.type === "req") asked[message.id] = message.method;
      });
      socket.on("framereceived", (frame) => {
        const message = JSON.parse(frame.payload.toString());
        if (message.type === "res" && asked[message.id] === "sessions.create") created = message.payload?.key ?? null;
      });
    });
    await page.goto(`${url}/#token=${token}`);
    await page.locator("textarea").first().waitFor();
    await page.goto(`${url}/new`);
    const box = page.locator("textarea").first();
    await box.waitFor();
    await box.fill(said);
    await box.press("Enter");
    await page.waitForFunction(answered, said);
    const address = page.url();
    await page.goto("about:blank");
    await page.goto(address);
    await page.waitForFunction(answered, said);
    console.log(JSON.stringify({ created, address, again: await page.locator("body").innerText(), refused }));
  } finally {
    await browser.close();
  }
})();
