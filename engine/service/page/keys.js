// The API key: asked for when the server wants one, kept for this tab only.

import { forgetKey, keepKey } from "./api.js";
import { $ } from "./dom.js";
import { tell } from "./strings.js";

let again = () => {};

/** Ask for a key, with the server's reason; `retry` is what to do with it. */
export function askKey(message, retry) {
  forgetKey();
  again = retry;
  if (message) tell($("key-why"), "serverSays", { sentence: message });
  else tell($("key-why"), "keyWhy");
  $("key-panel").hidden = false;
  $("key").focus();
}

export function startKeys() {
  $("key-panel").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (!key) {
      $("key").focus();
      return;
    }
    keepKey(key);
    $("key").value = "";
    $("key-panel").hidden = true;
    again();
  });
}
