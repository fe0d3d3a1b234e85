// A run: one request for the chosen cells, its events handed to their columns.

import { describe } from "./api.js";
import { Column } from "./column.js";
import { commandLine, copyText, saveJson } from "./command.js";
import { $, el, say } from "./dom.js";
import { askKey } from "./keys.js";
import { clearNotices, showError } from "./notices.js";
import { asked, checked, firstProblem, isSetting, pointAt } from "./settings.js";
import { plain, t, tell } from "./strings.js";

export class Run {
  constructor(model, picks, source) {
    Object.assign(this, { model, picks, source });
    this.aborter = null;
    this.columns = ["A", "B"].map((letter, slot) => new Column(letter, () => picks.turnTo(slot)));
    $("columns").replaceChildren(this.columns[0].root);
    $("columns").hidden = false;
    $("settings").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    $("stop").addEventListener("click", () => this.stop());
    $("download").addEventListener("click", () => this.download());
    $("copy").addEventListener("click", () => this.copy());
  }

  get shown() {
    return this.picks.isPair ? this.columns : this.columns.slice(0, 1);
  }

  /** Follow the choice of cells; a run about other cells ends. */
  follow() {
    const { ids, isPair, slot } = this.picks;
    const isOther = this.shown.some((column, at) => column.id !== (ids[at] ?? null));
    if (isOther) this.stop();
    $("columns").replaceChildren(...this.shown.map((column) => column.root));
    $("columns").classList.toggle("pair", isPair);
    this.shown.forEach((column, at) => {
      column.set(ids[at] ?? null, this.source.cells);
      column.head.disabled = !isPair;
      column.head.classList.toggle("turn", isPair && at === slot);
      if (isPair) column.head.setAttribute("aria-pressed", String(at === slot));
      else column.head.removeAttribute("aria-pressed");
    });
    this.after();
  }

  /** What can be done now, and the command line. */
  after() {
    const isRunning = this.aborter !== null;
    const hadFocus = [$("generate"), $("stop")].includes(document.activeElement); // which the change would lose
    $("generate").disabled = isRunning || !this.picks.isWhole;
    $("generate").hidden = isRunning; // the other takes its place
    $("stop").hidden = !isRunning;
    if (hadFocus) $(isRunning ? "stop" : "generate").focus();
    $("download").disabled = isRunning || !this.shown.some((column) => column.text.tokens.length || column.record);
    $("after").hidden = !this.picks.ids.some(Boolean);
    this.showCommand();
  }

  /** The command line, or what keeps it from being one: it must not differ from what would be sent. */
  showCommand() {
    const wrong = firstProblem();
    $("copy").disabled = Boolean(wrong);
    if (wrong) {
      tell($("command"), ...wrong);
      return;
    }
    const ids = this.picks.ids.filter(Boolean);
    const words = commandLine(this.source.cells.file ?? this.source.cells.name, this.model.id, ids, asked());
    plain($("command"), "");
    $("command").append(...words.flatMap((word) => [el("span", { text: word }), " "]).slice(0, -1));
  }

  async start() {
    if (this.aborter || !this.picks.isWhole) return;
    const chosen = checked();
    if (!chosen) return;
    clearNotices();
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    for (const column of this.shown) column.wait();
    this.after();
    say(t("started"));
    if ($("columns").getBoundingClientRect().top > 0.7 * innerHeight) $("columns").scrollIntoView(); // on a phone
    try {
      await this.listen(chosen, signal);
    } catch (error) {
      if (!signal.aborted) this.explain(error);
    } finally {
      for (const column of this.shown) column.halt("incomplete");
      if (this.aborter?.signal === signal) this.aborter = null;
      this.after();
    }
  }

  /** What is asked, but for the settings. */
  get question() {
    return { ...this.source.request, cell_ids: this.picks.ids, top_genes: 10, grid: true };
  }

  async listen(chosen, signal) {
    const columns = [...this.shown];
    const request = { ...this.question, ...chosen };
    for await (const { name, data } of describe(request, signal)) {
      if (signal.aborted) return;
      if (name === "start") this.begin(columns, data, chosen);
      if (name === "cell" && data.grid) columns[data.cell]?.genes(data.grid, data);
      if (name === "token") columns[data.cell]?.token(data);
      if (name === "result") columns[data.cell]?.result(data);
    }
  }

  /** The service took the request: what was shown and could be saved goes. */
  begin(columns, started, chosen) {
    Object.assign(this, { started, settings: chosen });
    for (const column of columns) column.begin();
  }

  explain(error) {
    const retry = () => this.start();
    for (const column of this.shown) column.halt("incomplete");
    if (error.code === 401) askKey(error.message, retry);
    else if (error.code === 404) showError(error, { retry, ways: [["loadAgain", () => this.source.load("demo")]] });
    else if (isSetting(error.param)) showError(error, { ways: [["changeSetting", () => pointAt(error.param)]] });
    else showError(error, { retry });
  }

  stop() {
    if (!this.aborter) return;
    this.aborter.abort();
    this.aborter = null;
    for (const column of this.columns) column.halt("stopped");
    say(t("stopped"));
    this.after();
  }

  async copy() {
    try {
      await copyText($("command").textContent);
      tell($("copy"), "copied");
      say(t("copied"));
    } catch {
      getSelection().selectAllChildren($("command"));
      tell($("copy"), "copyByHand");
    }
    setTimeout(() => tell($("copy"), "copy"), 2000);
  }

  download() {
    const columns = this.shown;
    const name = columns.map((column) => column.id.replace(/[^\w.-]+/g, "_")).join("_");
    saveJson(`cellscribe-${name}.json`, {
      model: this.model.id, device: this.model.device, precision: this.model.precision, cells: this.source.cells.name,
      id: this.started?.id ?? null, settings: this.settings, genes: this.started?.genes ?? null,
      results: columns.map((column) => column.saved),
    });
  }
}
