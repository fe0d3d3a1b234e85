// How the text is written: greedy or top-p, seed and length; checked before anything is sent.

import { $ } from "./dom.js";
import { number, tell } from "./strings.js";

const LABELS = { temperature: "temperature", top_p: "nucleus", seed: "seed", max_new_tokens: "maxTokens" };

// As it was typed: as a number "0.99999999999999999" is whole, too.
const WHOLE = /^\d+(e\+?\d+)?$/i;

const field = (name) => $("settings").elements.namedItem(name);

export function startSettings(limits, changed) {
  const longest = field("max_new_tokens");
  longest.max = limits?.max_new_tokens ?? "";
  longest.min = limits?.min_new_tokens ?? 1;
  if (longest.max) longest.value = Math.min(Number(longest.value), Number(longest.max));
  const update = (event) => {
    settle(event?.target);
    const isSampled = field("sampling").value === "top-p";
    for (const label of $("settings").querySelectorAll("[data-sampled]")) label.hidden = !isSampled;
    changed();
  };
  $("settings").addEventListener("input", update);
  update();
}

/** What was wrong with a field is so no more once it is another. */
function settle(input) {
  input?.removeAttribute("aria-invalid");
  input?.removeAttribute("aria-describedby");
  if (input) $("invalid").hidden = true;
}

/** Point at a field that the page or the server does not accept. */
export function pointAt(name) {
  const input = field(name);
  input?.setAttribute("aria-invalid", "true");
  input?.focus();
}

export const isSetting = (name) => name in LABELS;

/** What is wrong with a field that is shown, as a sentence's key and values; null where it is well. */
function problem(input) {
  if (input.closest("[hidden]")) return null;
  const { min, max, step, value } = input;
  const isWhole = step === "1";
  const most = Number(max || (isWhole ? Number.MAX_SAFE_INTEGER : Infinity)); // beyond it another number would be sent
  const given = isWhole && !WHOLE.test(value.trim()) ? NaN : Number(value);
  if (value.trim() !== "" && given >= Number(min || -Infinity) && given <= most) return null;
  return [isWhole ? "invalidWhole" : "invalidRange", { label: { key: LABELS[input.name] }, min, max: isWhole ? number(most) : max }];
}

/** What is asked, or null with the first problem shown. */
export function checked() {
  const inputs = Object.keys(LABELS).map(field);
  inputs.forEach(settle);
  const input = inputs.find(problem);
  if (!input) return asked();
  tell($("invalid"), ...problem(input));
  $("invalid").hidden = false;
  input.setAttribute("aria-describedby", "invalid");
  pointAt(input.name);
  return null;
}

/** The key and values of the sentence about the first field that is wrong, if there is one. */
export const firstProblem = () => Object.keys(LABELS).map((name) => problem(field(name))).find(Boolean);

/** The settings as they stand, as the service takes them: what is sent, saved and put on the command line. */
export function asked() {
  const value = (name) => Number(field(name).value);
  const isSampled = field("sampling").value === "top-p";
  return {
    temperature: isSampled ? value("temperature") : 0,
    top_p: isSampled ? value("top_p") : null,
    seed: value("seed"),
    max_new_tokens: value("max_new_tokens"),
  };
}
