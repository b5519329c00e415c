// A figure or table that scrolls in its own box, as on a phone, can be reached and scrolled by keys.

const BOXES = "figure, .cell_output .output, .pst-scrollable-table-container";

function reachable() {
  for (const box of document.querySelectorAll(`.bd-article :is(${BOXES})`)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
