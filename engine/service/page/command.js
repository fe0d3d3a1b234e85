// The command line that does the same, for a POSIX shell.

const PLAIN = /^[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*$/;

/** Quote one word, as Python's shlex.quote does; a word that begins with a dash stays one for the shell. */
export const quoted = (word) => (PLAIN.test(word) || /^-[A-Za-z0-9-]*$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

/** A file whose name looks like an option is named from here. */
const fileName = (name) => (name.startsWith("-") ? `./${name}` : name);

/** How tokens are drawn; a temperature of 0 draws nothing. */
const sampling = ({ temperature, top_p: topP }) =>
  temperature === 0 ? ["greedy"] : ["top-p", "--temperature", String(temperature), "--top-p", String(topP)];

/** The words of `cellscribe describe` for cells and what is asked about them, each quoted. */
export function commandLine(file, bundle, ids, asked) {
  const words = ["cellscribe", "describe", fileName(file), "--bundle", bundle];
  for (const id of ids) words.push(...(id.startsWith("-") ? [`--cell-id=${id}`] : ["--cell-id", id]));
  words.push("--sampling", ...sampling(asked));
  words.push("--seed", String(asked.seed), "--max-new-tokens", String(asked.max_new_tokens));
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
