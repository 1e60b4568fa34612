// node page.mjs PAGE CHROMIUM: milliseconds from a click on a column's head to the sorted table on the screen, as JSON.
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [path, executablePath] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"], protocolTimeout: 120000 });
const page = await browser.newPage();
await page.setViewport({ width: 1280, height: 900 });
await page.goto(pathToFileURL(path).href);
await page.waitForSelector("html.ready", { timeout: 120000 });
const found = {};
for (const table of ["table.results", "#long"]) {
  found[table] = [];
  for (const column of [5, 1, 5, 1, 5]) {
    const milliseconds = await page.evaluate(
      async (table, column) => {
        const begin = performance.now();
        document.querySelector(`${table} thead`).rows[0].cells[column].click();
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
        return performance.now() - begin;
      },
      table,
      column,
    );
    found[table].push(milliseconds);
  }
}
await browser.close();
console.log(JSON.stringify(found));
