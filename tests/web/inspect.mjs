// node inspect.mjs PAGE.. CHROMIUM: what pages of results do in a browser, as a JSON list.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { HtmlValidate } from "html-validate";
import puppeteer from "puppeteer-core";

const paths = process.argv.slice(2);
const executablePath = paths.pop();
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Whether the tables can be sorted, filtered and narrowed.
async function used(page) {
  // The first table alone.
  const first = `#${await page.$eval("table.results", (table) => table.id)}`;
  const column = () => page.$$eval(`${first} tbody tr`, (rows) => rows.map((row) => row.cells[row.cells.length - 1].textContent));
  const heads = () => page.$$eval(`${first} thead th`, (cells) => cells.map((cell) => cell.textContent.trim()));
  const rows = () => page.$$eval(`${first} tbody tr`, (found) => found.length);
  const last = (await page.$$(`${first} thead th`)).at(-1);
  const before = await rows();
  await last.click();
  await page.waitForSelector(`${first} thead th[aria-sort]`);
  const sorted = await column();
  const search = await page.$(`[aria-controls="${first.slice(1)}"][type="search"]`);
  await search.type(await page.$eval(`${first} tbody tr td`, (cell) => cell.textContent));
  const filtered = await rows();
  await search.click({ clickCount: 3 });
  await page.keyboard.press("Backspace");
  const all = await heads();
  await page.click(".buttons-colvis");
  await page.waitForSelector(".dt-button-collection button");
  await page.$eval(".dt-button-collection button:last-of-type", (button) => button.click());
  const fewer = await heads();
  await page.keyboard.press("Escape");
  await page.waitForSelector(".dt-button-collection", { hidden: true });
  return { before, sorted, filtered, heads: all, fewer };
}

// How many rows are left of each choice of whose are shown; nothing where there is no choice.
async function chosen(page) {
  const select = await page.$("select[data-filters]");
  if (!select) return {};
  const whose = {};
  for (const choice of ["ours", "theirs", ""]) {
    await select.select(choice);
    whose[choice] = await page.$$eval("table.results tbody tr:has(td:nth-child(2))", (rows) => rows.length);
  }
  return { whose };
}

// What a number's source says; nothing where the page has no sources.
async function sources(page) {
  if (!(await page.$("#long"))) return {};
  const start = performance.now();
  await page.$$eval("#long thead th", (cells) => cells[5].click());
  await page.waitForSelector("#long thead th[aria-sort]");
  const milliseconds = performance.now() - start;
  await page.$eval("#long button[data-jobs]", (button) => button.click());
  await page.waitForSelector("dialog[open]");
  const source = await page.$eval("dialog[open]", (dialog) => dialog.innerText);
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog[open]", { hidden: true });
  await page.$eval("table.results button.source", (button) => button.click());
  await page.waitForSelector("dialog[open]");
  const ofRow = await page.$eval("dialog[open]", (dialog) => dialog.innerText);
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog[open]", { hidden: true });
  await page.$eval("td.number button.source", (button) => button.click());
  await page.waitForSelector("dialog[open]");
  const ofCell = await page.$eval("dialog[open]", (dialog) => dialog.innerText);
  await page.keyboard.press("Escape");
  return { ofRow, ofCell, milliseconds, source };
}

// What the first figure that is drawn in the page shows; nothing where none is.
async function plotted(page) {
  const names = await page.evaluate(() => Object.keys(JSON.parse(document.getElementById("data")?.textContent ?? "{}").plots ?? {}));
  if (!names.length) return {};
  for (const name of names) {
    await page.$eval(`#figure-${name}`, (each) => each.scrollIntoView());
    await page.waitForSelector(`#figure-${name}.drawn .main-svg`);
  }
  const first = `#figure-${names[0]}`;
  const marks = () => page.$$eval(`${first} .scatterlayer .trace`, (found) => found.length);
  const all = await marks();
  await page.click(`${first} .legend button`);
  await page.waitForSelector(`${first} .legend [aria-pressed="false"]`);
  const fewer = await marks();
  await page.click(`${first} .legend button`);
  await page.waitForSelector(`${first} .legend :not([aria-pressed="false"])`);
  const { x, y, width, height } = await page.$eval(`${first} .scatterlayer .point`, (point) => {
    point.scrollIntoView({ block: "center" });
    return point.getBoundingClientRect().toJSON();
  });
  await page.mouse.move(x + width / 2, y + height / 2);
  await page.waitForSelector(`${first} .hoverlayer text`);
  const words = await page.$eval(`${first} .hoverlayer`, (layer) => layer.textContent);
  const links = await page.$$eval(".plot a", (found) => found.length);
  return { plots: { names, all, fewer, words, links } };
}

// What axe finds wrong, a line each.
async function violations(page) {
  await page.evaluate(axe);
  const { violations: all } = await page.evaluate(() => globalThis.axe.run());
  return all.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html.slice(0, 200)}`);
}

// What the page at a path does.
async function inspected(browser, path) {
  const url = pathToFileURL(path).href;
  const found = { opened: [] };
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      const page = await browser.newPage();
      const errors = [];
      page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("request", (request) => /^https?:/.test(request.url()) && errors.push(`asked for ${request.url()}`));
      page.on("dialog", (dialog) => errors.push(dialog.message()) && dialog.dismiss());
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(url);
      await page.waitForSelector("html.ready");
      const pictures = await page.$$eval("figure img", (images) => images.map((image) => image.naturalWidth));
      const drawn = await plotted(page);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      const seen = { width, scheme, pictures, overflow, ...drawn, violations: await violations(page), ...(await used(page)) };
      found.opened.push({ ...seen, ...(await chosen(page)), ...(await sources(page)), errors });
      await page.close();
    }
  }
  const plain = await browser.newPage();
  await plain.setJavaScriptEnabled(false);
  await plain.goto(url);
  found.unscripted = await plain.$$eval("table.results tbody tr", (rows) => rows.length);
  await plain.close();
  const report = await new HtmlValidate({ extends: ["html-validate:standard"] }).validateString(readFileSync(path, "utf8"));
  found.invalid = report.results.flatMap(({ messages }) => messages.map((each) => `${each.line}: ${each.ruleId}: ${each.message}`));
  return found;
}

const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
const all = [];
for (const path of paths) all.push(await inspected(browser, path));
await browser.close();
console.log(JSON.stringify(all));
