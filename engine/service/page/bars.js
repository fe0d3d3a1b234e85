// The ten genes that the text so far rests on most.

import { el } from "./dom.js";
import { percent, tell, tipAs } from "./strings.js";

const NONE = new Set();

/** One row a gene: name, bar relative to the largest, share; a bar without filling where the cell was not given the gene. */
function row(gene, share, largest, isNamed, isAbsent) {
  const bar = el("i");
  bar.style.width = `${(100 * share) / (largest || 1)}%`;
  const name = el("span", { class: "gene", text: gene });
  const item = el(
    "li", { class: [isNamed && "named", isAbsent && "absent"].filter(Boolean).join(" ") },
    name,
    el("span", { class: "track", "aria-hidden": "true" }, bar),
    el("span", { class: "share", text: percent(share) }),
  );
  if (isAbsent) {
    const note = el("span", { class: "unseen" });
    tell(note, "notGiven");
    tipAs(item, "notGiven");
    item.append(note);
  } else name.title = gene; // it may be cut
  return item;
}

/** Fill a list with `[gene, share]` pairs, largest first; some genes are named in the text, some were not given. */
export function showBars(list, pairs, { named = NONE, absent = NONE } = {}) {
  const largest = pairs.length ? pairs[0][1] : 1;
  list.replaceChildren(
    ...pairs.slice(0, 10).map(([gene, share]) => row(gene, share, largest, named.has(gene), absent.has(gene))),
  );
}
