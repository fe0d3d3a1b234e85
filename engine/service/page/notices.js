// What went wrong, in the server's words, under a heading that says what kind of thing it is, with a way on.

import { $, el } from "./dom.js";
import { tell } from "./strings.js";

const HEADINGS = {
  invalid_request_error: "errorRequest", authentication_error: "errorKey", rate_limit_error: "errorBusy",
  not_found_error: "errorNotFound", timeout_error: "errorTimeout", unavailable_error: "errorUnavailable",
  unreachable: "errorUnreachable", broken_off: "errorBrokenOff", upload: "errorUpload",
};
const WORDS = { unreachable: "errorUnreachableText", broken_off: "errorBrokenOffText" };

let countdown = 0;

export function clearNotices() {
  clearInterval(countdown);
  $("notices").replaceChildren();
}

/** A button that can be pressed when the seconds that the server asked for are over. */
function waitingButton(seconds, action) {
  const button = el("button", { type: "button", class: "primary" });
  let left = seconds ?? 0;
  const show = () => {
    button.disabled = left > 0;
    if (left > 0) tell(button, "tryAgainIn", { seconds: left });
    else tell(button, "tryAgain");
  };
  show();
  if (left > 0) {
    countdown = setInterval(() => {
      left -= 1;
      show();
      if (left <= 0) clearInterval(countdown);
    }, 1000);
  }
  button.addEventListener("click", action);
  return button;
}

/** The server's sentence if it gave one, else the page's own. */
function saying({ message, type, code, words }) {
  const paragraph = el("p");
  if (words) tell(paragraph, ...words);
  else if (message) tell(paragraph, "serverSays", { sentence: message });
  else tell(paragraph, WORDS[type] ?? "errorServerText", { code: code || "" });
  return paragraph;
}

/** Show an ApiError; `retry` does it again, `ways` are further buttons, as `[key, action]`. */
export function showError(error, { retry, ways = [] } = {}) {
  clearNotices();
  const heading = el("h2");
  tell(heading, HEADINGS[error.type] ?? "errorServer");
  const buttons = el("div", { class: "row" });
  const closing = (action) => () => {
    clearNotices();
    action();
  };
  if (retry) buttons.append(waitingButton(error.retryAfter, closing(retry)));
  for (const [key, action] of [...ways, ["dismiss", () => {}]]) {
    const button = el("button", { type: "button" });
    tell(button, key);
    button.addEventListener("click", closing(action));
    buttons.append(button);
  }
  const told = el("div", { role: "alert" }, heading, saying(error)); // without the seconds that count down
  const notice = el("div", { class: "notice error" }, told, buttons);
  $("notices").replaceChildren(notice);
  notice.scrollIntoView({ block: "nearest" });
}

/** Show a sentence of the page's own, as for a file that cannot be taken. */
export function showProblem(key, values) {
  showError({ type: "upload", words: [key, values] });
}
