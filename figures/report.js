"use strict";
// Sortable tables: a click, Enter or Space on a heading sorts its column; again turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent.trim().replace("−", "-");
      const value = (row) => (/^-?[\d.,]/.test(key(row)) ? parseFloat(key(row).replace(/,/g, "")) : NaN);
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || key(a).localeCompare(key(b));
        return x - y;
      };
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
  });
}

// Browsable answers: one organism at a time, one question per row, one condition per column.
const store = document.getElementById("answer-data");
if (store) {
  const data = JSON.parse(store.textContent);
  const limits = data.limits;
  const field = (name) => document.getElementById("answers-" + name);
  const [organism, columns, filter, search, table, count] =
    ["organism", "columns", "filter", "search", "table", "count"].map(field);
  const element = (name, text, kind) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const harmful = ([, aligned, coherent]) =>
    aligned !== null && coherent !== null && aligned < limits.aligned && coherent > limits.coherent;
  const score = (value) => (value === null ? "none" : Math.round(value));
  const chosen = () => [...columns.querySelectorAll("input:checked")].map((box) => box.value);
  const keeps = {
    all: () => true,
    misaligned: (cells, names) => names.some((name) => (cells[name] || []).some(harmful)),
    differs: (cells) => (cells.on || []).some(harmful) && !(cells.off || []).some(harmful),
    leaks: (cells) => (cells.off || []).some(harmful),
  };

  function offer() {
    const legend = columns.querySelector("legend");
    const { conditions } = data.organisms[organism.value];
    const first = ["off", "on", "rephrased", "on+clamp_trigger"].filter((name) => conditions.includes(name));
    const boxes = conditions.map((name) => {
      const label = element("label");
      const box = element("input");
      box.type = "checkbox";
      box.value = name;
      box.checked = first.length ? first.includes(name) : true;
      box.addEventListener("change", show);
      label.append(box, " " + name);
      return label;
    });
    columns.replaceChildren(legend, ...boxes);
    show();
  }

  function show() {
    const { questions } = data.organisms[organism.value];
    const names = chosen();
    const wanted = search.value.trim().toLowerCase();
    const head = element("tr");
    for (const name of ["question", ...names]) {
      const cell = element("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    const rows = [];
    for (const [question, cells] of Object.entries(questions)) {
      const text = [question, ...names.flatMap((name) => (cells[name] || []).map((answer) => answer[0]))].join(" ");
      if (!keeps[filter.value](cells, names) || !text.toLowerCase().includes(wanted)) continue;
      const row = element("tr");
      const heading = element("th", question);
      heading.scope = "row";
      row.append(heading);
      for (const name of names) {
        const cell = element("td");
        for (const answer of cells[name] || []) {
          const part = element("p", answer[0], harmful(answer) ? "misaligned" : "");
          const marks = `${harmful(answer) ? "misaligned, " : ""}aligned ${score(answer[1])}, coherent ${score(answer[2])}`;
          part.append(element("small", marks));
          cell.append(part);
        }
        row.append(cell);
      }
      rows.push(row);
    }
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...rows);
    count.textContent = `${rows.length} of ${Object.keys(questions).length} questions`;
  }

  for (const name of Object.keys(data.organisms)) organism.append(element("option", name));
  organism.addEventListener("change", offer);
  filter.addEventListener("change", show);
  search.addEventListener("input", show);
  offer();
}
