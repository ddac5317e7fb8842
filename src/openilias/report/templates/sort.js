(() => {
  const table = document.getElementById("query-table"), body = table.tBodies[0];
  const value = (row, column) => row.cells[column].dataset.v;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const sign = down ? -1 : 1;
      const compare = (a, b) => column ? a - b : (a < b ? -1 : a > b ? 1 : 0);
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
    });
  });
  const filter = document.getElementById("filter"), input = filter.querySelector("input");
  filter.hidden = false;
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    let left = 0;
    for (const row of body.rows) {
      row.hidden = !value(row, 0).toLowerCase().includes(wanted);
      left += !row.hidden;
    }
    filter.querySelector("output").textContent = wanted ? `${left} of ${body.rows.length}` : "";
  });
})();
