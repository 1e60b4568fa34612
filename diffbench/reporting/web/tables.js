// Tables that are sorted, filtered and narrowed.
followColourScheme();

// "1.6 (0.2)†*" is sorted by 1.6; a cell without a number comes last.
const valueOf = (text) => {
  const found = /^-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/.exec(text.trim());
  return found ? Number(found[0].replaceAll(",", "")) : Infinity;
};
const buttons = [{ extend: "colvis", text: "Columns" }];
const layout = { topStart: { buttons }, topEnd: "search", bottomStart: "info", bottomEnd: null };

// Copies the text of the element that a button names.
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}

function sortable() {
  for (const table of document.querySelectorAll("table.results")) {
    const numbers = [...table.tHead.rows[0].cells].flatMap((head, i) => (head.classList.contains("number") ? [i] : []));
    new DataTable(table, {
      paging: false,
      order: [],
      layout,
      columnDefs: [{ targets: numbers, type: "num", render: { _: (text) => text, sort: valueOf } }],
    });
  }
}
