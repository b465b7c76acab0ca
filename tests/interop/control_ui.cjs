// The official Control UI, served by the gateway: node control_ui.cjs BROWSER URL TOKEN SCREENSHOTS.
// Prints {"chat", "devices", "sent", "failed", "errors"}: the texts of two pages, what the page's sockets were refused.
const path = require("node:path");
const { noteRefusals, openBrowser } = require("./browser.cjs");
const [executablePath, url, token, screenshots] = process.argv.slice(2);

(async () => {
  const browser = await openBrowser(executablePath);
  const refused = [];
  const http = [];
  try {
    const page = await (await browser.newContext({ viewport: { width: 1300, height: 850 } })).newPage();
    page.setDefaultTimeout(30000);
    page.on("response", (response) => { if (response.status() >= 400) http.push(`${response.status()} ${response.url()}`); });
    noteRefusals(page, refused);
    await page.goto(`${url}/#token=${token}`);
    const box = page.locator("textarea").first();
    await box.waitFor();
    await box.fill("say it again, echo");
    await box.press("Enter");
    await page.waitForFunction(() => document.body.innerText.split("say it again, echo").length > 2);
    await page.screenshot({ path: path.join(screenshots, "chat.png") });
    const chat = await page.locator("body").innerText();
    const address = page.url();
    await page.goto(`${url}/settings/devices`);
    await page.getByText("openclaw-control-ui").first().waitFor();
    await page.screenshot({ path: path.join(screenshots, "devices.png") });
    const devices = await page.locator("body").innerText();
    console.log(JSON.stringify({ chat, devices, address, refused, http }));
  } finally {
    await browser.close();
  }
})();
