// Labels for chosen cells, where the model labels cells.

import { annotate } from "./api.js";
import { $, el } from "./dom.js";
import { askKey } from "./keys.js";
import { clearNotices, showError } from "./notices.js";
import { number, plain, tell } from "./strings.js";

const COLUMNS = ["cell", "label", "score", "ontology"];

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function labelled(status, label) {
  const cell = el("td", { text: label ?? "–" });
  if (status !== "ok") tell(cell, "serverSays", { sentence: status });
  return cell;
}

export class Annotation {
  constructor(picks, source) {
    Object.assign(this, { picks, source });
    this.aborter = null;
    $("annotate").hidden = false;
    $("annotate-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    $("annotate-stop").addEventListener("click", () => this.stop());
  }

  follow() {
    const { ids } = this.picks;
    $("annotate-go").disabled = !ids.length || this.aborter !== null;
    $("annotate-stop").hidden = this.aborter === null;
    if (ids.length) plain($("annotate-picked"), ids.join(", "));
    else tell($("annotate-picked"), "pickSome");
  }

  async start() {
    if (this.aborter || !this.picks.ids.length) return;
    clearNotices();
    const labels = lines($("labels").value);
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    this.follow();
    try {
      const request = { ...this.source.request, cell_ids: this.picks.ids, labels: labels.length ? labels : null };
      const answer = await annotate(request, signal);
      if (!signal.aborted) this.show(answer.results);
    } catch (error) {
      if (!signal.aborted) this.explain(error);
    } finally {
      if (this.aborter?.signal === signal) this.aborter = null;
      this.follow();
    }
  }

  explain(error) {
    const retry = () => this.start();
    if (error.code === 401) askKey(error.message, retry);
    else showError(error, { retry });
  }

  stop() {
    this.aborter?.abort();
    this.aborter = null;
    this.follow();
  }

  show(results) {
    const heads = COLUMNS.map((key) => {
      const head = el("th", { scope: "col" });
      tell(head, key);
      return head;
    });
    const rows = results.map(({ cell_id: id, status, label, score, cell_ontology_term_id: term }) =>
      el(
        "tr", {},
        el("th", { scope: "row", class: "id", text: id }),
        labelled(status, label),
        el("td", { class: "number", text: number(score, 3) }),
        el("td", { class: "id", text: term ?? "–" }),
      ),
    );
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
    $("annotate-result").replaceChildren(table);
    $("annotate-result").hidden = false;
  }
}
