for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.querySelectorAll("th button")) button.addEventListener("click", () => {
    const heading = button.closest("th"), column = heading.cellIndex, isNumber = heading.dataset.n !== undefined;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = row => { const text = row.cells[column].textContent; return isNumber ? parseFloat(text) : text; };
    const missing = value => Number.isNaN(value) || value === "" || value === "–";
    body.append(...[...body.rows].map(row => [value(row), row]).sort(([a], [b]) =>
      missing(a) || missing(b) ? missing(a) - missing(b)
        : sign * (isNumber ? a - b : a.localeCompare(b, "en", {numeric: true}))).map(([, row]) => row));
  });
}
for (const field of document.querySelectorAll("input[data-table]")) field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/);
  for (const row of document.getElementById(field.dataset.table).tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
const open = () => {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = found && found.closest("details");
  if (details) { details.open = true; found.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
