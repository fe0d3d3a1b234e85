// A text as its tokens: each tells, when pointed at or reached with arrows, which genes it rests on.

import { $, el } from "./dom.js";
import { percent, t } from "./strings.js";
import { showBars } from "./bars.js";

/** Show what a token rests on, beside it and inside the window. */
function showTip(span, token, absent) {
  const genes = el("ol", { class: "bars small" });
  showBars(genes, token.genes.slice(0, 6), { absent });
  const chance = Number.isFinite(token.logprob) ? t("probability", { share: percent(Math.exp(token.logprob)) }) : "";
  const head = el("p", {}, el("b", { text: token.text.trim() || "␣" }), el("span", { class: "soft", text: chance }));
  const tip = $("tip");
  tip.replaceChildren(head, token.genes.length ? genes : el("p", { class: "soft", text: t("noGenes") }));
  tip.hidden = false;
  const box = span.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const fits = box.bottom + tip.offsetHeight + 14 < window.innerHeight;
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${(fits ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + window.scrollY}px`;
}

export class TokenText {
  /** `focused` is called with the token that is pointed at, and with null when none is; the genes in `absent` are marked. */
  constructor(box, absent, focused) {
    this.box = box;
    this.absent = absent;
    this.focused = focused;
    this.clear();
    const reach = (event) => {
      const span = event.target.closest?.(".token");
      if (span) this.open(span);
    };
    box.addEventListener("pointerover", reach);
    box.addEventListener("focusin", reach);
    box.addEventListener("pointerleave", () => this.close());
    box.addEventListener("focusout", () => this.close());
    box.addEventListener("keydown", (event) => this.key(event));
  }

  clear() {
    this.tokens = [];
    this.spans = [];
    this.box.replaceChildren();
    this.close();
  }

  add(token) {
    const text = this.tokens.length ? token.text : token.text.trimStart();
    const lead = text.match(/^\s*/)[0];
    const span = el("span", { class: "token", text: text.slice(lead.length), tabindex: this.spans.length ? -1 : 0 });
    span.dataset.at = this.spans.length;
    this.tokens.push(token);
    this.spans.push(span);
    this.box.append(lead, span);
  }

  get text() {
    return this.box.textContent;
  }

  /** Mark the tokens that spell one of these genes. */
  mark(genes) {
    const ends = [];
    let length = 0;
    for (const node of this.box.childNodes) {
      length += node.textContent.length;
      if (node.nodeType === Node.ELEMENT_NODE) ends.push(length);
    }
    for (const gene of genes) {
      for (const [from, to] of places(this.text, gene)) {
        this.spans.forEach((span, at) => {
          const start = ends[at] - span.textContent.length;
          if (start < to && ends[at] > from && span.textContent) span.classList.add("named");
        });
      }
    }
  }

  open(span) {
    const token = this.tokens[Number(span.dataset.at)];
    if (!token) return;
    this.box.querySelector(".token.open")?.classList.remove("open");
    span.classList.add("open");
    span.setAttribute("aria-describedby", "tip");
    showTip(span, token, this.absent);
    this.focused(token);
  }

  close() {
    this.box.querySelector(".token.open")?.classList.remove("open");
    $("tip").hidden = true;
    this.focused?.(null);
  }

  key(event) {
    const at = this.spans.indexOf(document.activeElement);
    if (at < 0) return;
    const targets = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: this.spans.length - 1 };
    if (event.key === "Escape" && !$("tip").hidden) {
      this.close();
      event.stopPropagation();
    }
    const next = this.spans[targets[event.key]];
    if (!next) return;
    event.preventDefault();
    this.spans[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

/** Where a gene stands in a text as a word of its own. */
function places(text, gene) {
  const found = [];
  for (let from = text.indexOf(gene); from >= 0; from = text.indexOf(gene, from + 1)) {
    const to = from + gene.length;
    const isWord = !/[\w-]/.test(text[from - 1] ?? " ") && !/\w/.test(text[to] ?? " ");
    if (isWord) found.push([from, to]);
  }
  return found;
}
