// On a narrow screen the theme shows its article's menu buttons, but listens to the hidden ones of the page header.

document.addEventListener("DOMContentLoaded", () => {
  for (const kind of ["primary", "secondary"]) {
    const [listened, ...shown] = document.querySelectorAll(`button.${kind}-toggle`);
    const dialog = document.getElementById(`pst-${kind}-sidebar-modal`);
    for (const button of shown) {
      button.addEventListener("click", () => {
        if (window.matchMedia("(max-width: 991.98px)").matches && dialog && !dialog.open) listened.click();
      });
    }
  }
});
