// Small helpers over the document. Whatever came from a server goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** Make an element: properties (class, text, and any attribute), then children. */
export function el(name, { class: classes, text, ...attributes } = {}, ...children) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Resolve a colour of the style sheet as what a canvas takes. */
export function colour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/** Give a canvas as many pixels as its box has on this screen; return the context and the box in CSS pixels. */
export function sharpen(canvas, height) {
  const width = canvas.clientWidth;
  const tall = height ?? canvas.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(tall * ratio));
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height: tall };
}

/** Run a function at most once a frame, however often it is asked for. */
export function eachFrame(paint) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  };
}

const said = { timer: 0, waiting: "" };

/** Tell a screen reader something; what comes in quick succession is told together. */
export function say(text) {
  said.waiting = said.waiting ? `${said.waiting} ${text}` : text;
  clearTimeout(said.timer);
  said.timer = setTimeout(() => {
    $("said").textContent = said.waiting;
    said.waiting = "";
  }, 150);
}
