// The page: asks the server what it can do, and joins the pieces.

import { hasKey, models } from "./api.js";
import { Annotation } from "./annotate.js";
import { $ } from "./dom.js";
import { askKey, startKeys } from "./keys.js";
import { showLegend } from "./legend.js";
import { CellList } from "./list.js";
import { CellMap } from "./map.js";
import { showError } from "./notices.js";
import { Picks } from "./picks.js";
import { Run } from "./run.js";
import { startSettings } from "./settings.js";
import { Source } from "./source.js";
import { startLanguage, tell } from "./strings.js";
import { labelTheme, startTheme } from "./theme.js";

const MOST_LABELLED = 64; // cells, in one request of the page

/** Join list, map, legend and source; return the source. */
function startCells(model, picks, parts) {
  let shown = "";
  const source = new Source(model.limits, (cells) => {
    const keep = shown === cells.source; // only the colours are other ones
    shown = cells.source;
    $("find").value = keep ? $("find").value : "";
    list.show(cells);
    map.show(cells);
    showLegend(cells.groups, (group) => {
      list.show(cells, group);
      map.show(cells, group);
    });
    if (keep) picks.changed();
    else picks.start(picks.most > 2 ? [] : cells.ids.slice(0, 1));
  });
  const pick = (index) => picks.pick(source.cells.ids[index]);
  const markOf = (id) => picks.markOf(id);
  const list = new CellList({ input: $("find"), list: $("list"), space: $("list-space") }, { markOf, pick });
  const nameOf = (index) => [source.cells.ids[index], list.groupName(index)].filter(Boolean).join(" · ");
  const map = new CellMap($("map"), $("map-tip"), { markOf, pick, nameOf });
  parts.push(list, map);
  return source;
}

function startTask(model, picks, source) {
  const can = new Set(model.tasks);
  if (can.has("describe")) {
    $("describe").hidden = false;
    const run = new Run(model, picks, source);
    startSettings(model.limits, () => run.after());
    $("compare").addEventListener("change", () => picks.compare($("compare").checked));
    return run;
  }
  if (can.has("annotate")) {
    picks.most = Math.min(MOST_LABELLED, model.limits?.cells ?? MOST_LABELLED);
    return new Annotation(picks, source);
  }
  $("no-task").hidden = false;
  tell($("no-task-text"), "noTask", { tasks: model.tasks.join(", ") });
  return null;
}

function startShortcuts(task) {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) task?.start();
    else if (event.key === "Escape") task?.stop();
    else if (event.key === "/" && !isTyping) {
      event.preventDefault();
      $("find").focus();
    }
  });
}

const painted = []; // canvases and lists, painted anew when colours change

function show(model) {
  const facts = [model.id, model.family, model.device, model.precision].filter(Boolean);
  $("model").textContent = facts.join("  ·  ");
  let task = null;
  const picks = new Picks(() => {
    repaint();
    task?.follow();
  });
  const source = startCells(model, picks, painted);
  task = startTask(model, picks, source);
  painted.push(...(task?.columns ?? []).map((column) => column.grid));
  startShortcuts(task);
  source.load("demo");
}

async function start() {
  try {
    const [model] = await models();
    if (model.needs_key && !hasKey()) askKey("", start);
    else show(model);
  } catch (error) {
    if (error.code === 401) askKey(error.message, start);
    else showError(error, { retry: start });
  }
}

function repaint() {
  for (const part of painted) part.paint();
}

startLanguage($("language"), () => {
  labelTheme();
  repaint();
});
startTheme(repaint);
startKeys();
start();
