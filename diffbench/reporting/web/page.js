// The window that says where a number came from, and all numbers.
const data = JSON.parse(document.getElementById("data").textContent);

sortable();

// The first cell of a row that has a source opens it, and so does a cell that has one of its own. After the tables have
// read their cells, which they sort and filter as text.
const SOURCES = ":is([data-jobs], [data-published], [data-recorded])";
for (const place of document.querySelectorAll(`:is(.results, .effects) :is(tr, td)${SOURCES}`)) {
  const cell = place.cells ? place.cells[0] : place;
  const button = document.createElement("button");
  Object.assign(button, { className: "source", textContent: cell.textContent, title: "Where it came from" });
  Object.assign(button.dataset, place.dataset);
  cell.replaceChildren(button);
}

// Each row of numbers ends with the index of its job, for the first column.
const shown = document.querySelectorAll("#long thead th").length - 1;
new DataTable("#long", {
  data: data.numbers,
  deferRender: true,
  order: [],
  pageLength: 25,
  layout: { ...layout, bottomEnd: "paging" },
  columns: [
    {
      data: null,
      orderable: false,
      render: (row) => (row[shown] === null ? "" : `<button data-jobs="${row[shown]}">source</button>`),
    },
    ...Array.from({ length: shown }, (_, i) => ({ data: i, defaultContent: "", render: DataTable.render.text() })),
  ],
});

// Words of results are only ever set as text, never as HTML.
const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
};
const written = (value) => (typeof value === "object" ? JSON.stringify(value, null, 1) : String(value));
const dialog = document.getElementById("source");

function described(job) {
  const { name, "made of": made, command, variant, item, ...others } = job;
  const list = element("dl", null, element("dt", "command"), element("dd", null, element("pre", command)));
  for (const [key, value] of Object.entries(others)) {
    const plain = typeof value === "object" ? element("pre", written(value)) : element("span", written(value));
    list.append(element("dt", key), element("dd", null, plain));
  }
  const files = made.map((index) => element("li", null, element("pre", written(data.products[index]))));
  list.append(element("dt", "made of"), element("dd", null, element("ul", null, ...files)));
  return element("details", null, element("summary", name), list);
}

// A row of what is published, with a link to its source, or of what is recorded.
function cited(kind, row) {
  const list = element("dl", null);
  for (const [key, text] of Object.entries(row)) {
    const value = key === "address" ? Object.assign(element("a", text), { href: text }) : element("span", text);
    list.append(element("dt", key), element("dd", null, value));
  }
  return element("details", null, element("summary", kind), list);
}

document.addEventListener("click", ({ target }) => {
  // Anywhere in a cell or a row that has a source, but not where text is being marked.
  const place = target.closest(SOURCES);
  if (!place || !getSelection().isCollapsed) return;
  const { jobs, ...rows } = place.dataset;
  const parts = jobs
    ? jobs.split(" ").map((index) => described(data.jobs[Number(index)]))
    : Object.entries(rows).map(([kind, row]) => cited(kind, JSON.parse(row)));
  parts[0].open = true;
  document.getElementById("source-content").replaceChildren(...parts);
  dialog.showModal();
});
