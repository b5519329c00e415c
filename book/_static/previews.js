// Previews of the terms, symbols, equations and theorems that a page mentions, by mouse and by keys.
// Their texts are in preview_texts.js, which book/tools/previews.py writes.

window.addEventListener("DOMContentLoaded", () => {
  const root = new URL(document.documentElement.dataset.content_root, location.href).href;
  const tip = document.createElement("div");
  tip.id = "preview";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let shown = null, timer = 0;

  function textOf(element) {
    const symbol = [...element.classList].find((name) => name.startsWith("symbol-"));
    return previewTexts[symbol ? `book/notation.html#${symbol}` : element.href.replace(root, "")];
  }
  function previewed(target) {
    const element = target.closest?.(".bd-article a.internal[href*='#'], .bd-article .math[class*='symbol-']");
    return element && textOf(element) ? element : null;
  }
  const box = (element) => element.querySelector("[tabindex]") || element;  // what the keys reach of a formula

  function close() {
    clearTimeout(timer);
    if (shown) box(shown).removeAttribute("aria-describedby");
    shown = null;
    tip.hidden = true;
  }
  async function open(element) {
    close();
    shown = element;
    tip.innerHTML = textOf(element);
    tip.hidden = false;
    box(element).setAttribute("aria-describedby", tip.id);
    MathJax.typesetClear([tip]);
    await MathJax.typesetPromise([tip]);
    const place = element.getBoundingClientRect(), {clientWidth, clientHeight} = document.documentElement;
    const above = place.top - tip.offsetHeight - 6, below = place.bottom + 6;
    const top = below + tip.offsetHeight > clientHeight && above > 0 ? above : below;
    tip.style.top = `${top + window.scrollY}px`;
    tip.style.left = `${Math.max(8, Math.min(place.left, clientWidth - tip.offsetWidth - 8))}px`;
  }

  document.addEventListener("pointerover", (event) => {
    const element = event.pointerType === "mouse" && previewed(event.target);
    clearTimeout(timer);
    if (element && element !== shown) timer = setTimeout(() => open(element), 150);
    else if (!element && !tip.contains(event.target) && !shown?.matches(":focus-within")) timer = setTimeout(close, 250);
  });
  document.addEventListener("focusin", (event) => { if (previewed(event.target)) open(previewed(event.target)); });
  document.addEventListener("focusout", (event) => { if (shown?.contains(event.target)) close(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
});
