// Which of its genes a cell was not given: measured as zero, or not measured at all.
// The service says it in the places that were `detected`, or in a list beside the genes: values (null, 0), or booleans.

/** Those among some genes that the cell was not given; none where nothing is said of it. */
export function notGiven(genes, { detected, values, given } = {}) {
  const told = detected ? placed(detected, genes.length) : (values ?? given ?? []);
  return genes.filter((_, at) => at in told && !told[at]);
}

/** Those among the top genes of a record, which may also say it of each gene. */
export function notGivenOf({ top_genes: top, values, given }) {
  const ofEach = (top ?? []).map((one) => one.is_detected ?? one.value);
  const told = values ?? given ?? (ofEach.some((one) => one !== undefined) ? ofEach : []);
  return notGiven((top ?? []).map(({ gene }) => gene), { values: told });
}

function placed(places, length) {
  const told = new Array(length).fill(false);
  for (const place of places) told[place] = true;
  return told;
}
