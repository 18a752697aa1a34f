// The theme lets wide tables scroll by themselves; the keyboard must reach them too. It wraps them before `load`.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    table.tabIndex = 0;
    table.setAttribute("role", "region");
    table.setAttribute("aria-label", "table");
  }
});
