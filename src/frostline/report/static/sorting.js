// Tables that are sorted by a click on a title.

/** Let a table be sorted: cells may carry what they are sorted by in `data-value`. */
export function makeSortable(table) {
  const body = table.tBodies[0];
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, place) => {
    title.querySelector("button").addEventListener("click", () => {
      const isDescending = title.getAttribute("aria-sort") !== "descending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      const sign = isDescending ? -1 : 1;
      const rows = [...body.rows].toSorted((one, other) => sign * compared(one.cells[place], other.cells[place]));
      body.replaceChildren(...rows);
    });
  });
}

function compared(one, other) {
  const [first, second] = [one, other].map((cell) => cell.dataset.value);
  if (first === undefined && second === undefined) return one.textContent.localeCompare(other.textContent);
  return Number(first) - Number(second);
}
