// Tables that are sorted, filtered and narrowed, and the window that says where a number came from.
followColourScheme();
const data = JSON.parse(document.getElementById("data").textContent);

// "1.6 (0.2)†*" is sorted by 1.6; a cell without a number comes last.
const valueOf = (text) => {
  const found = /^-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/.exec(text.trim());
  return found ? Number(found[0].replaceAll(",", "")) : Infinity;
};
const buttons = [{ extend: "colvis", text: "Columns" }];
const layout = { topStart: { buttons }, topEnd: "search", bottomStart: "info", bottomEnd: null };

for (const table of document.querySelectorAll("table.results")) {
  const numbers = [...table.tHead.rows[0].cells].flatMap((head, i) => (head.classList.contains("number") ? [i] : []));
  new DataTable(table, {
    paging: false,
    order: [],
    layout,
    columnDefs: [{ targets: numbers, type: "num", render: { _: (text) => text, sort: valueOf } }],
  });
}

const shown = data.numbers.length ? data.numbers[0].length - 1 : 0;
const long = new DataTable("#long", {
  data: data.numbers,
  deferRender: true,
  order: [],
  pageLength: 25,
  layout: { ...layout, bottomEnd: "paging" },
  columns: [
    {
      data: null,
      orderable: false,
      render: (row) => (row[shown] === null ? "" : `<button data-job="${row[shown]}">source</button>`),
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

function open(job) {
  const { name, "made of": made, command, ...others } = job;
  document.getElementById("source-name").textContent = name;
  const list = element("dl", null);
  list.append(element("dt", "command"), element("dd", null, element("pre", command)));
  for (const [key, value] of Object.entries(others)) {
    const plain = typeof value === "object" ? element("pre", written(value)) : element("span", written(value));
    list.append(element("dt", key), element("dd", null, plain));
  }
  const files = made.map((index) => element("li", null, element("pre", written(data.products[index]))));
  list.append(element("dt", "made of"), element("dd", null, element("ul", null, ...files)));
  document.getElementById("source-content").replaceChildren(list);
  dialog.showModal();
}

document.getElementById("long").addEventListener("click", ({ target }) => {
  if (target.dataset.job !== undefined) open(data.jobs[Number(target.dataset.job)]);
});
document.documentElement.classList.add("ready");
