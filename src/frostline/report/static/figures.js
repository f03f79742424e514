// What a plan trains and takes, reckoned at once.

// AdamW keeps two moments like the parameter, and a step counted in one float of its own per tensor.
const MOMENTS = 2;
const STEP_BYTES = 4;

/** Reckon the figures of a plan: counts of values, bytes of memory. */
export function figuresOf(model, plan) {
  const trained = model.parameters.filter((one) => !plan.frozen.has(one.place));
  const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0);
  const gradients = sum(trained, "bytes");
  return {
    parameters: sum(model.parameters, "count"),
    trainable: sum(trained, "count"),
    tensors: trained.length,
    weights: sum(model.units, "bytes"),
    gradients,
    optimizer: MOMENTS * gradients + STEP_BYTES * trained.length,
  };
}

/** What is to be said of a plan: the checks that need no batch, in sentences. */
export function warningsOf(model, plan) {
  const said = [];
  const trained = model.parameters.filter((one) => !plan.frozen.has(one.place));
  if (!trained.length) return ["Nothing trains: let something train, the head at least."];
  const random = model.parameters.filter((one) => one.origin === "new" && plan.frozen.has(one.place));
  if (random.length) {
    const names = random.slice(0, 3).map((one) => one.name).join(", ") + (random.length > 3 ? " …" : "");
    said.push(`New and frozen, so it stays random: ${names}.`);
  }
  const withParameters = model.units.filter((unit) => unit.parameters.length);
  const head = withParameters.filter((unit) => unit.kind === "head");
  if (head.length && head.every((unit) => plan.state(unit.parameters) === "frozen" && !unit.isNew)) {
    said.push("The head is frozen while what lies beneath it trains.");
  }
  const line = withParameters.findIndex((unit) => plan.state(unit.parameters) !== "frozen");
  const above = withParameters.slice(line).filter((unit) => plan.state(unit.parameters) === "frozen");
  if (above.length > 0) {
    said.push(
      `Frozen above the frost line: ${above.length === 1 ? above[0].name : `${above.length} units`}. ` +
        "That saves gradients, but backward passes still run through.",
    );
  }
  return said;
}
