// Light and dark: what the system prefers, unless the switch was used; then that, remembered.

import { $ } from "./dom.js";
import { t } from "./strings.js";

const KEPT = "cellscribe-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

export function labelTheme() {
  const text = t(isDark() ? "toLight" : "toDark");
  $("theme").setAttribute("aria-label", text);
  $("theme").title = text;
  $("theme").classList.toggle("is-dark", isDark());
}

/** Start the switch; `changed` is called whenever the colours are other ones. */
export function startTheme(changed) {
  const kept = localStorage.getItem(KEPT);
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  const update = () => {
    labelTheme();
    changed();
  };
  $("theme").addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem(KEPT, next);
    update();
  });
  system.addEventListener("change", update);
  labelTheme();
}
