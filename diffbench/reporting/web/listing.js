// Tables, and a choice of whose rows are shown: the first column begins with "ours" or "theirs".
sortable();
for (const select of document.querySelectorAll("select[data-filters]")) {
  select.closest("label").hidden = false;
  const column = new DataTable.Api(`#${select.dataset.filters}`).column(0);
  select.addEventListener("change", () => column.search(select.value && `^${select.value}`, true, false).draw());
}
