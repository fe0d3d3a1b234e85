// The command line that does the same, for a POSIX shell.

const PLAIN = /^[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*$/;

/** Quote one word, as Python's shlex.quote does; a word that begins with a dash stays one for the shell. */
export const quoted = (word) => (PLAIN.test(word) || /^-[A-Za-z0-9-]*$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

/** A file whose name looks like an option is named from here. */
const fileName = (name) => (name.startsWith("-") ? `./${name}` : name);

/** The words of `cellscribe describe` for cells and settings, each quoted. */
export function commandLine(file, bundle, ids, settings) {
  const words = ["cellscribe", "describe", fileName(file), "--bundle", bundle];
  for (const id of ids) words.push(...(id.startsWith("-") ? [`--cell-id=${id}`] : ["--cell-id", id]));
  words.push("--sampling", settings.sampling);
  if (settings.sampling === "top-p") {
    words.push("--temperature", String(settings.temperature), "--top-p", String(settings.top_p));
  }
  words.push("--seed", String(settings.seed), "--max-new-tokens", String(settings.max_new_tokens));
  return words.map(quoted);
}

/** Put text on the clipboard; pages that are not on HTTPS or localhost have only the old way. */
export async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.className = "unseen";
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (!isCopied) throw new Error("not copied");
}

/** Offer a value as a JSON file. */
export function saveJson(name, value) {
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
