// The groups of cells, each with its colour; pressing one keeps only its cells in the list and the map.

import { $, el } from "./dom.js";
import { groupColour } from "./map.js";

const MOST = 200;

/** Show the groups; `chosen` is called with a group's number, or null for all. */
export function showLegend(groups, chosen) {
  let pressed = null;
  const buttons = (groups?.names ?? []).slice(0, MOST).map((name, group) => {
    const dot = el("i", { class: "dot" });
    dot.style.background = groupColour(group);
    const button = el("button", { type: "button", "aria-pressed": "false", title: name }, dot, el("span", { text: name }));
    button.addEventListener("click", () => {
      pressed = pressed === group ? null : group;
      buttons.forEach((other, at) => other.setAttribute("aria-pressed", String(at === pressed)));
      chosen(pressed);
    });
    return button;
  });
  $("legend").replaceChildren(...buttons);
  $("legend").hidden = !buttons.length;
}
