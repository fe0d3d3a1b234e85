// One cell's result: its text as it comes, figures, the grid of genes, and the ten it rests on.

import { showBars } from "./bars.js";
import { el, say } from "./dom.js";
import { notGiven, notGivenOf } from "./given.js";
import { GeneGrid } from "./grid.js";
import { groupColour } from "./map.js";
import { bytes } from "./sse.js";
import { describeAs, milliseconds, number, percent, plain, tell, tipAs } from "./strings.js";
import { TokenText } from "./tokens.js";

const FIGURES = ["tokens", "waited", "writingTime", "firstToken", "perSecond", "logProbability"];
const TIPS = { waited: "waitedFrom", writingTime: "writingTimeFrom", firstToken: "firstTokenFrom" };

const told = (name, key, classes) => {
  const element = el(name, { class: classes });
  tell(element, key);
  return element;
};

/** A figure with its name; times say from when to when they count. */
function figureOf(key, value) {
  const figure = el("div", {}, told("dt", key), value);
  if (key in TIPS) tipAs(figure, TIPS[key]);
  return figure;
}

export class Column {
  constructor(letter, turnTo) {
    this.letter = letter;
    this.id = null;
    this.absent = new Set(); // genes that the cell was not given, as far as the server has told
    this.build(turnTo);
    this.text = new TokenText(this.box, this.absent, (token) => this.grid?.show(token?.bytes ?? null));
    this.grid = new GeneGrid(this.canvas, (found) => this.nameGene(found));
    this.clear();
  }

  build(turnTo) {
    this.name = el("span", { class: "id" });
    this.group = el("span", { class: "group soft" });
    this.head = el("button", { type: "button", class: "slot" }, el("b", { class: "letter", text: this.letter }), this.name);
    this.head.addEventListener("click", turnTo);
    this.box = el("p", { class: "text", role: "group", lang: "en" }); // which models write in
    describeAs(this.box, "text");
    this.hint = el("p", { class: "hint soft" });
    this.status = el("p", { class: "state" });
    this.problem = el("p", { class: "invalid" });
    this.figures = Object.fromEntries(FIGURES.map((key) => [key, el("dd")]));
    const figures = el("dl", { class: "figures" }, ...FIGURES.map((key) => figureOf(key, this.figures[key])));
    this.canvas = el("canvas", { class: "grid", role: "img" });
    this.gene = el("p", { class: "soft small gene-name" });
    this.bars = el("ol", { class: "bars" });
    describeAs(this.bars, "topGenes");
    const marks = el("p", { class: "marks small soft" }, told("span", "named", "is-named"), told("span", "notGiven", "is-absent"));
    this.evidence = el(
      "div", { class: "evidence" },
      el("div", { class: "genes" }, el("div", { class: "row tight" }, told("h3", "attention", "grow"), this.gene), el("div", { class: "grid-box" }, this.canvas)),
      el("div", {}, told("h3", "topGenes"), this.bars, marks),
    );
    this.root = el(
      "article", { class: "panel column" },
      el("header", { class: "row" }, this.head, this.group, this.status), this.problem, this.hint, this.box, figures, this.evidence,
    );
  }

  /** The cell that this column is about. */
  set(id, cells) {
    this.root.setAttribute("aria-label", id ?? this.letter);
    const index = cells.ids.indexOf(id);
    const { groups } = cells;
    if (id === null) tell(this.name, "secondCell");
    else plain(this.name, id);
    this.group.textContent = groups && index >= 0 ? (groups.names[groups.of[index]] ?? "") : "";
    this.group.style.setProperty("--dot", groups && index >= 0 ? groupColour(groups.of[index]) : "transparent");
    if (id !== this.id) this.clear();
    this.id = id;
    tell(this.hint, id === null ? "hintSecond" : "hintGenerate");
  }

  clear() {
    this.text.clear();
    this.grid.clear();
    this.absent.clear();
    this.logprobs = [];
    this.spoken = 0;
    this.record = null;
    this.bars.replaceChildren();
    this.root.classList.remove("begun", "running", "has-genes", "has-named", "has-absent");
    plain(this.status, "");
    plain(this.problem, "");
    for (const figure of Object.values(this.figures)) figure.textContent = "–";
  }

  /** A text was asked for; an earlier one stays until it begins. */
  wait() {
    this.asked = performance.now();
    this.began = this.asked;
    this.before = this.status.dataset.text ?? "";
    this.root.classList.add("running");
    tell(this.status, "waiting");
  }

  begin() {
    this.clear();
    this.before = null;
    this.root.classList.add("begun", "running");
    tell(this.status, "waiting");
  }

  /** The cell has its slot. */
  genes(names, told) {
    this.began = performance.now(); // as the server counts, too
    const absent = notGiven(names, told);
    this.grid.start(names, absent);
    this.miss(absent);
    this.root.classList.toggle("has-genes", names.length > 0);
    this.nameGene(null);
  }

  /** Mark genes that the cell was not given. */
  miss(genes) {
    for (const gene of genes) this.absent.add(gene);
    this.root.classList.toggle("has-absent", this.absent.size > 0);
  }

  token(event) {
    const token = { ...event, genes: event.genes ?? [], bytes: event.weights ? bytes(event.weights) : null };
    if (!this.text.tokens.length) {
      this.figure("waited", milliseconds(this.began - this.asked));
      this.figure("firstToken", milliseconds(performance.now() - this.asked));
      tell(this.status, "writing");
    }
    this.miss(notGiven(token.genes.map(([gene]) => gene), event));
    this.text.add(token);
    if (token.bytes) this.grid.add(token.bytes, event.most ?? token.genes[0]?.[1] ?? 1);
    if (event.running) showBars(this.bars, event.running, { absent: this.absent });
    if (Number.isFinite(event.logprob)) this.logprobs.push(event.logprob);
    this.count(this.text.tokens.length, performance.now() - this.began, mean(this.logprobs));
    this.speak(false);
  }

  figure(name, text) {
    this.figures[name].textContent = text;
  }

  count(tokens, time, logprob) {
    this.figure("tokens", number(tokens));
    this.figure("writingTime", milliseconds(time));
    this.figure("perSecond", tokens && time ? number((1000 * tokens) / time) : "–");
    this.figure("logProbability", number(logprob, 2));
  }

  /** Tell a screen reader what is new, a sentence at a time. */
  speak(isWhole) {
    const { text } = this.text;
    const end = isWhole ? text.length : Math.max(text.lastIndexOf(". ") + 1, text.lastIndexOf(".\n") + 1);
    if (end <= this.spoken) return;
    say(text.slice(this.spoken, end).trim());
    this.spoken = end;
  }

  result(record) {
    this.grid.end();
    if (record.status && record.status !== "ok") this.fail(record.status);
    else this.finish(record);
    this.record = record;
  }

  finish(record) {
    this.root.classList.remove("running");
    if (!this.text.tokens.length && record.text) this.text.add({ text: record.text, genes: [], bytes: null });
    this.count(record.tokens, record.latency_ms, record.mean_logprob);
    this.figure("waited", milliseconds(record.queue_ms));
    this.figure("firstToken", milliseconds(record.time_to_first_token_ms));
    const top = record.top_genes ?? [];
    const named = new Set(record.named_genes ?? []);
    this.miss(notGivenOf(record));
    this.root.classList.toggle("has-named", named.size > 0);
    showBars(this.bars, top.map(({ gene, weight }) => [gene, weight]), { named, absent: this.absent });
    this.text.mark(named);
    this.nameGene(null);
    tell(this.status, record.finish_reason === "length" ? "cutAtLength" : "finished");
    this.speak(true);
  }

  /** This cell has no whole text; the sentence says why. */
  fail(sentence) {
    if (!this.text.tokens.length) this.clear();
    this.root.classList.remove("running");
    tell(this.status, "failed");
    tell(this.problem, "serverSays", { sentence: sentence.replace(/^failed: /, "") });
    say(this.problem.textContent);
  }

  /** The stream ended before the text did; what arrived is kept. */
  halt(key) {
    if (!this.root.classList.contains("running")) return;
    this.root.classList.remove("running");
    this.grid.end();
    if (this.before) tell(this.status, this.before);
    else if (this.before === "") plain(this.status, "");
    else if (this.text.tokens.length) tell(this.status, key);
    else this.clear();
  }

  nameGene(found) {
    if (found && this.absent.has(found.gene)) tell(this.gene, "shareNotGiven", { gene: found.gene, share: percent(found.share) });
    else if (found) plain(this.gene, `${found.gene}  ${percent(found.share)}`);
    else tell(this.gene, "countOfGenes", { count: number(this.grid.genes.length) });
    const top = [...this.bars.querySelectorAll(".gene")].map((gene) => gene.textContent).join(", ");
    describeAs(this.canvas, "gridLabel", { count: this.grid.genes.length, top });
  }

  /** What a download holds of this column. */
  get saved() {
    const tokens = this.text.tokens.map(({ text, token, logprob, genes }) => ({ text, token, logprob, genes }));
    const record = this.record ?? { cell_id: this.id, status: "incomplete", text: this.text.text };
    return { ...record, streamed: tokens };
  }
}

const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
