// The approval page in headless Chromium, scripts switched off: node approval_page.cjs BROWSER LINK TOKEN SCREENSHOTS.
// Signs in, approves the node, then its commands. Prints {"headings", "foreign", "framed", "errors", "requests"}.
const path = require("node:path");
const { openBrowser } = require("./browser.cjs");
const [executablePath, link, token, screenshots] = process.argv.slice(2);

async function readable(page) {
  // Nothing is cut off or needs to be scrolled sideways, and every target is big enough for a finger.
  const box = await page.locator("main").boundingBox();
  const buttons = await page.locator("button").all();
  const sizes = await Promise.all(buttons.map((button) => button.boundingBox()));
  return box.x >= 0 && box.x + box.width <= page.viewportSize().width && sizes.every((size) => size.height >= 44);
}

(async () => {
  const browser = await openBrowser(executablePath);
  const headings = [];
  const errors = [];
  const requests = new Set();
  try {
    const options = { javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" };
    const page = await (await browser.newContext(options)).newPage();
    page.setDefaultTimeout(30000);
    page.on("console", (message) => errors.push(message.text()));
    page.on("request", (request) => requests.add(`${request.method()} ${new URL(request.url()).pathname}`));
    const look = async (name) => {
      headings.push(await page.locator("h1").innerText());
      await page.screenshot({ path: path.join(screenshots, `${name}.png`), fullPage: true });
      if (!(await readable(page))) errors.push(`${name}: does not fit`);
    };

    // Somebody else's page, with the right secret: its form does nothing, and it cannot show ours in a frame.
    const strange = await browser.newContext();
    await strange.route("http://evil.example/**", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>evil</title>" }));
    const evil = await strange.newPage();
    await evil.goto("http://evil.example/");
    const own = new URL(link);
    const fields = { step: "show", request: own.searchParams.get("request"), secret: token };
    const [answer] = await Promise.all([
      evil.waitForResponse((response) => response.request().method() === "POST"),
      evil.evaluate(([action, values]) => {
        const form = document.createElement("form");
        Object.assign(form, { method: "post", action });
        for (const [name, value] of Object.entries(values)) form.append(Object.assign(document.createElement("input"), { name, value }));
        document.body.append(form);
        form.submit();
      }, [`${own.origin}/nodes/approve`, fields]),
    ]);
    const foreign = answer.status();
    const framing = await strange.newPage(); // the first is still on its way to the answer
    await framing.goto("http://evil.example/");
    const framed = await framing.evaluate((src) => new Promise((resolve) => {
      const frame = Object.assign(document.createElement("iframe"), { src });
      frame.onload = () => { try { resolve(frame.contentDocument !== null); } catch { resolve(true); } };
      document.body.append(frame);
    }).then(() => true), link).then(async () => {
      const inner = framing.frames().find((frame) => frame !== framing.mainFrame());
      return (await inner.content()).includes("Approve a device");
    });

    await page.goto(link);
    await look("sign-in");
    await page.getByLabel("Gateway token").fill(token);
    await page.getByRole("button", { name: "Show the request" }).click();
    await look("review");
    await page.getByRole("button", { name: "Approve" }).click();
    await look("approved");
    await page.getByRole("button", { name: "See which commands it offers" }).click();
    for (let tries = 0; tries < 40 && (await page.getByRole("button", { name: "Look again" }).count()); tries++) {
      await page.waitForTimeout(500); // the node comes back when it does; a person would press again, too
      await page.getByRole("button", { name: "Look again" }).click();
    }
    await look("commands");
    await page.getByRole("button", { name: "Approve" }).click();
    await look("lent");
    console.log(JSON.stringify({ headings, foreign, framed, errors, requests: [...requests].sort() }));
  } finally {
    await browser.close();
  }
})();
