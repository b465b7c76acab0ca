// The Usage page of the official Control UI: node control_ui_usage.cjs BROWSER URL TOKEN SCREENSHOTS.
// Asks the agent once, opens the page and one conversation there. Prints {"page", "detail", "asked", "refused", "errors"}.
const path = require("node:path");
const { noteRefusals, openBrowser } = require("./browser.cjs");
const [executablePath, url, token, screenshots] = process.argv.slice(2);

(async () => {
  const browser = await openBrowser(executablePath);
  const asked = [];
  const refused = [];
  const errors = [];
  try {
    const page = await (await browser.newContext({ viewport: { width: 1300, height: 1600 } })).newPage();
    page.setDefaultTimeout(30000);
    page.on("pageerror", (error) => errors.push(String(error)));
    noteRefusals(page, refused);
    page.on("websocket", (socket) => socket.on("framesent", (frame) => asked.push(JSON.parse(frame.payload.toString()).method)));
    await page.goto(`${url}/#token=${token}`);
    const box = page.locator("textarea").first();
    await box.waitFor();
    await box.fill("how much is it");
    await box.press("Enter");
    await page.getByText("as much as this").first().waitFor();
    await page.goto(`${url}/usage`);
    await page.locator(".session-bar-row").first().waitFor();
    await page.screenshot({ path: path.join(screenshots, "usage.png"), fullPage: true });
    const text = await page.locator("body").innerText();
    await page.locator(".session-bar-row").first().click();
    await page.getByText("how much is it").first().waitFor();
    await page.screenshot({ path: path.join(screenshots, "usage-detail.png"), fullPage: true });
    const detail = await page.locator("body").innerText();
    console.log(JSON.stringify({ page: text, detail, asked, refused, errors }));
  } catch (error) {
    const page = browser.contexts()[0]?.pages()[0];
    await page?.screenshot({ path: path.join(screenshots, "failed.png"), fullPage: true });
    console.log(JSON.stringify({ failed: String(error), text: await page?.locator("body").innerText(), asked, refused, errors }));
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
})();
