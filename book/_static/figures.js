// A figure that scrolls in its own box, as on a phone, can be reached and scrolled by keys.

function reachable() {
  for (const box of document.querySelectorAll(".bd-article figure, .bd-article .cell_output .output")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
