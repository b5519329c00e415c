// Figures, tables and formulas that are too wide, as on a phone, scroll in boxes of their own.

const SMALLEST = 0.8;
const BOXES = "figure, .cell_output .output, .pst-scrollable-table-container";

// Keys reach and scroll a box that scrolls. MathJax does the same for formulas.
function reachable() {
  for (const box of document.querySelectorAll(`.bd-article :is(${BOXES})`)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// A table that is too wide becomes smaller, down to four fifths; if that is not enough, it scrolls.
function shrink() {
  for (const box of document.querySelectorAll(".bd-article :is(.output, .pst-scrollable-table-container):has(table)")) {
    const table = box.querySelector("table");
    table.style.fontSize = "";
    const size = parseFloat(getComputedStyle(table).fontSize);
    for (let share = 0.95; box.scrollWidth > box.clientWidth && share > SMALLEST - 0.01; share -= 0.05) {
      table.style.fontSize = `${size * share}px`;
    }
  }
}

// A formula in a line of text that is longer than the line gets a line of its own.
function separate() {
  const formulas = [...document.querySelectorAll(".bd-article mjx-container:not([display])")];
  for (const formula of formulas) {
    formula.classList.remove("wide", "cut");
    if (formula.dataset.size !== undefined) formula.style.fontSize = formula.dataset.size;
  }
  const wide = formulas.filter((f) => f.offsetWidth > f.closest("p, li, td, dd, section").clientWidth);
  for (const formula of wide) formula.classList.add("wide");
  fit();
}

// A formula with a line of its own becomes somewhat smaller if it is too wide; if that is not enough, it scrolls.
function fit() {
  const formulas = [...document.querySelectorAll(".bd-article mjx-container:is([display], .wide)")];
  for (const formula of formulas) {
    formula.classList.remove("cut");
    formula.style.fontSize = formula.dataset.size ??= formula.style.fontSize;
  }
  const width = (formula) => formula.querySelector("mjx-math").getBoundingClientRect().width;
  const ratios = formulas.map((formula) => formula.clientWidth / width(formula));
  const sizes = formulas.map((formula) => parseFloat(getComputedStyle(formula).fontSize));
  formulas.forEach((formula, i) => {
    if (ratios[i] < 1) formula.style.fontSize = `${sizes[i] * Math.max(SMALLEST, 0.98 * ratios[i])}px`;
  });
  for (const formula of formulas) formula.classList.toggle("cut", width(formula) > formula.clientWidth + 1);
}

window.addEventListener("load", () => {
  shrink();
  reachable();
  window.MathJax?.startup?.promise.then(() => document.fonts.ready).then(separate);
});
window.addEventListener("resize", () => {
  shrink();
  reachable();
  separate();
});
