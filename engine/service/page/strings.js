// The interface's languages: the browser's at first, then what was chosen, remembered.
// A key in `data-text`, `data-label` or `data-placeholder` is filled in, and again when the language changes.

import { english } from "./english.js";
import { chinese } from "./chinese.js";

const KEPT = "cellscribe-language";
export const languages = { en: english, zh: chinese };

let current = "en";

/** The sentence of a key in the current language, `{name}` replaced by the value of that name, itself a text or `{ key }`. */
export function t(key, values = {}) {
  const sentence = languages[current][key] ?? key;
  return sentence.replace(/\{(\w+)\}/g, (_, name) => (values[name]?.key ? t(values[name].key) : (values[name] ?? "")));
}

/** Put a sentence into an element such that it follows the language. */
export function tell(element, key, values = {}) {
  element.dataset.text = key;
  element.dataset.values = JSON.stringify(values);
  element.textContent = t(key, values);
}

/** Give an element a label for screen readers that follows the language. */
export function describeAs(element, key, values = {}) {
  element.dataset.label = key;
  element.dataset.values = JSON.stringify(values);
  element.setAttribute("aria-label", t(key, values));
}

/** Give an element a note that is shown when it is pointed at, and follows the language. */
export function tipAs(element, key) {
  element.dataset.tip = key;
  element.title = t(key);
}

/** Put a text into an element that is the same in every language. */
export function plain(element, text) {
  delete element.dataset.text;
  element.textContent = text;
}

/** Fill in every sentence below an element. */
export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text, JSON.parse(element.dataset.values ?? "{}"));
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label, JSON.parse(element.dataset.values ?? "{}")));
  }
  for (const element of root.querySelectorAll("[data-tip]")) element.title = t(element.dataset.tip);
  for (const element of root.querySelectorAll("[data-placeholder]")) element.placeholder = t(element.dataset.placeholder);
}

function apply(language) {
  current = language in languages ? language : "en";
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  translate();
}

/** Start with the kept or the browser's language; `changed` is called after each change by the switch. */
export function startLanguage(select, changed) {
  const wanted = localStorage.getItem(KEPT) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  apply(wanted);
  select.value = current;
  select.addEventListener("change", () => {
    localStorage.setItem(KEPT, select.value);
    apply(select.value);
    changed();
  });
}

/** A number as people read it: thousands apart, a true minus sign. */
export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat("en", options).format(value).replace("-", "−");
}

/** A time in milliseconds. */
export const milliseconds = (value) => (Number.isFinite(value) ? `${number(value)} ms` : "–");

/** A share as a percentage. */
export const percent = (share) => `${number(share * 100, 1)} %`;
