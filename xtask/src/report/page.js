"use strict";

// Filter: what belongs to a box that is not checked is off. What has no such facet stays.
const form = document.getElementById("filter");
const faceted = document.querySelectorAll("tbody tr, figure, .series");
const rows = document.querySelectorAll("table.sortable tbody tr");

function filter() {
  const boxes = [...form.querySelectorAll("input")];
  const off = boxes.filter((box) => !box.checked);
  for (const element of faceted) {
    element.classList.toggle("off", off.some((box) => element.dataset[box.name] === box.value));
  }
  const shown = [...rows].filter((row) => !row.classList.contains("off")).length;
  form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
}

form.hidden = false;
form.addEventListener("change", filter);
filter();

// Sort: by number where a column has numbers. What has no value comes last, either way.
function sort(table, column, ascending) {
  const body = table.tBodies[0];
  const isNumber = table.tHead.rows[0].cells[column].classList.contains("number");
  const key = (row) => {
    const cell = row.cells[column];
    if (!isNumber) return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const compare = (p, q) => {
    const [a, b] = [key(p), key(q)];
    if (a === null || b === null) return (a === null) - (b === null);
    const order = isNumber ? a - b : a.localeCompare(b);
    return ascending ? order : -order;
  };
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

// Tooltips at once, and for the keyboard too, in place of the browser's own.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);

for (const mark of document.querySelectorAll(".mark")) {
  const title = mark.querySelector("title");
  if (!title) continue;
  const text = title.textContent;
  mark.setAttribute("aria-label", text);
  title.remove();
  const show = () => {
    tip.textContent = text;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const left = Math.min(at.right + 8, innerWidth - tip.offsetWidth - 8);
    const below = at.bottom + 8 + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${below ? at.bottom + 8 : at.top - tip.offsetHeight - 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  mark.addEventListener("pointerenter", show);
  mark.addEventListener("pointerleave", hide);
  mark.addEventListener("focus", show);
  mark.addEventListener("blur", hide);
}
