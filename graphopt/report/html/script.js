"use strict";

// Without this script the page is whole; with it tables are sorted and filtered, and its colours are chosen.

const root = document.documentElement;
root.classList.add("scripted");

function chooseColours() {
  const button = document.getElementById("theme");
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : preferred.matches);
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  preferred.addEventListener("change", name);
  button.hidden = false;
  name();
}

const collator = new Intl.Collator("en", { numeric: true });

// What a row is sorted by: a number, text, or undefined where the cell is empty.
function keyOf(row, column, isNumber) {
  const cell = row.cells[column];
  if (isNumber) return cell.dataset.v === undefined ? undefined : Number(cell.dataset.v);
  return cell.textContent || undefined;
}

// Equal rows keep their order; empty cells come last in both directions.
function sort(table, column, isNumber, direction) {
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => [keyOf(row, column, isNumber), row]);
  const compare = isNumber ? (a, b) => a - b : collator.compare;
  keyed.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return direction * compare(a, b);
  });
  const sorted = document.createDocumentFragment();
  for (const [, row] of keyed) sorted.append(row);
  body.append(sorted);
}

function makeSortable(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const isNumber = head.classList.contains("number");
    const first = isNumber && head.textContent !== "#" ? "descending" : "ascending";
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.ariaSort === first ? other : first;
      heads.forEach((one) => { one.ariaSort = null; });
      head.ariaSort = order;
      sort(table, column, isNumber, order === "ascending" ? 1 : -1);
    });
  });
}

// Rows are filtered by words; of those that are left the style sheet shows the first LIMIT until all are asked for.
const LIMIT = 500;

function makeFilter(table, box, count, more) {
  const rows = Array.from(table.tBodies[0].rows, (row) => [row, `${row.dataset.group} ${row.textContent}`.toLowerCase()]);
  const many = (number) => number.toLocaleString("en");
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    const shown = table.classList.contains("all") ? left : Math.min(left, LIMIT);
    more.hidden = shown === left;
    more.textContent = `Show all ${many(left)}`;
    count.value = shown === rows.length ? `${many(shown)} sites` : `${many(shown)} of ${many(rows.length)} sites`;
  };
  box.addEventListener("input", filter);
  more.addEventListener("click", () => {
    table.classList.add("all");
    filter();
  });
  box.parentElement.hidden = false;
  filter();
}

addEventListener("DOMContentLoaded", () => {
  const [box, count, more] = ["filter", "count", "more"].map((id) => document.getElementById(id));
  chooseColours();
  document.querySelectorAll("table").forEach(makeSortable);
  if (box) makeFilter(document.getElementById("sites"), box, count, more);
});
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
