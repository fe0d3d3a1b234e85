// Where cells come from: the ones that the server shows, or a file of one's own.

import { ApiError, cells, forget, upload } from "./api.js";
import { $, el } from "./dom.js";
import { askKey } from "./keys.js";
import { clearNotices, showError, showProblem } from "./notices.js";
import { describeAs, number, plain, t, tell } from "./strings.js";

const KINDS = { "PCA of vectors": "pcaOfVectors", "force-directed graph": "forceGraph" }; // those that have words in them

export class Source {
  constructor(limits, loaded) {
    Object.assign(this, { limits, loaded });
    this.cells = { ids: [], map: null, groups: null, columns: [], name: "" };
    this.source = "demo";
    this.uploads = new Map(); // id -> name
    $("source").addEventListener("change", () => this.load($("source").value));
    $("colour").addEventListener("change", () => this.load(this.source, $("colour").value));
    $("cancel").addEventListener("click", () => this.uploader.abort());
    $("remove").addEventListener("click", () => this.remove());
    $("file").addEventListener("change", () => {
      const [file] = $("file").files;
      $("file").value = "";
      if (file) this.take(file);
    });
    this.startDropping();
  }

  /** What a request says about its cells. */
  get request() {
    return { source: this.source };
  }

  startDropping() {
    let depth = 0; // of elements entered
    const mark = (step) => {
      depth = step === 0 ? 0 : Math.max(0, depth + step);
      $("drop").classList.toggle("over", depth > 0);
    };
    const hasFile = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => hasFile(event) && mark(1));
    document.addEventListener("dragleave", (event) => hasFile(event) && mark(-1));
    document.addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      mark(0);
      const [file] = event.dataTransfer.files;
      if (file) this.take(file);
    });
  }

  async load(source, column) {
    this.aborter?.abort(); // only the last choice counts
    const { signal } = (this.aborter = new AbortController());
    $("cells").setAttribute("aria-busy", "true");
    try {
      this.show(await cells(source, column, signal));
      clearNotices();
    } catch (error) {
      if (!signal.aborted) this.explain(error, () => this.load(source, column));
    } finally {
      if (!signal.aborted) $("cells").removeAttribute("aria-busy");
    }
  }

  /** Upload a file and show its cells. */
  async take(file) {
    const most = this.limits?.upload_bytes;
    if (!/\.h5ad$/i.test(file.name)) {
      showProblem("notH5ad", { name: file.name });
      return;
    }
    if (most && file.size > most) {
      showProblem("tooLarge", { name: file.name, size: megabytes(file.size), most: megabytes(most) });
      return;
    }
    this.uploader?.abort();
    const { signal } = (this.uploader = new AbortController());
    $("uploading").hidden = false;
    tell($("cells-note"), "uploading", { name: file.name, size: megabytes(file.size) });
    try {
      const answer = await upload(file, signal);
      this.uploads.set(answer.source, answer.name);
      this.show(answer);
      clearNotices();
    } catch (error) {
      if (!signal.aborted) this.explain(error, () => this.take(file));
      this.note();
    } finally {
      if (this.uploader.signal === signal) $("uploading").hidden = true;
    }
  }

  async remove() {
    const id = this.source;
    this.uploads.delete(id);
    await this.load("demo");
    forget(id).catch(() => {}); // it expires by itself, too
  }

  explain(error, retry) {
    if (!(error instanceof ApiError)) throw error;
    const isGone = error.code === 404 && this.uploads.has($("source").value);
    if (error.code === 401) askKey(error.message, retry);
    else if (isGone) showError(error, { ways: [["loadAgain", () => this.load("demo")]] });
    else showError(error, { retry });
    $("source").value = this.source;
  }

  show(answer) {
    this.cells = answer;
    this.source = answer.source;
    const named = [["demo", this.uploads.has(answer.source) ? t("demoCells") : answer.name], ...this.uploads];
    $("source").replaceChildren(...named.map(([id, name]) => el("option", { value: id, text: name })));
    if (this.uploads.has(answer.source)) tell($("source").options[0], "demoCells");
    $("source").value = answer.source;
    $("remove").hidden = answer.source === "demo";
    tell($("cells-count"), "countOfCells", { count: number(answer.n_cells) });
    this.columns();
    $("atlas").hidden = !answer.map;
    if (answer.map) this.nameMap(answer.map);
    this.note();
    this.loaded(answer);
  }

  nameMap({ kind }) {
    const named = kind in KINDS ? { key: KINDS[kind] } : kind;
    if (named.key) tell($("map-kind"), named.key);
    else plain($("map-kind"), kind);
    describeAs($("map"), "mapLabel", { kind: named });
  }

  columns() {
    const { columns, groups } = this.cells;
    $("colour-row").hidden = !columns?.length;
    $("colour").replaceChildren(...(columns ?? []).map((name) => el("option", { value: name, text: name })));
    if (groups) $("colour").value = groups.column;
  }

  note() {
    const { is_truncated: isTruncated, ids, n_cells: count, genes } = this.cells;
    if (isTruncated) tell($("cells-note"), "truncated", { shown: number(ids.length), count: number(count) });
    else if (genes) tell($("cells-note"), "genesKnown", { known: number(genes.known), total: number(genes.known + genes.unknown) });
    else plain($("cells-note"), "");
  }
}

const megabytes = (bytes) => `${number(bytes / 2 ** 20, bytes < 2 ** 20 * 10 ? 1 : 0)} MB`;
