// The ten genes that the text so far rests on most.

import { el } from "./dom.js";
import { percent } from "./strings.js";

/** One row a gene: name, bar relative to the largest, share. */
function row(gene, share, largest, isNamed) {
  const bar = el("i");
  bar.style.width = `${(100 * share) / (largest || 1)}%`;
  return el(
    "li",
    isNamed ? { class: "named" } : {},
    el("span", { class: "gene", text: gene }),
    el("span", { class: "track", "aria-hidden": "true" }, bar),
    el("span", { class: "share", text: percent(share) }),
  );
}

/** Fill a list with `[gene, share]` pairs, largest first. */
export function showBars(list, pairs, named = new Set()) {
  const largest = pairs.length ? pairs[0][1] : 1;
  list.replaceChildren(...pairs.slice(0, 10).map(([gene, share]) => row(gene, share, largest, named.has(gene))));
}
