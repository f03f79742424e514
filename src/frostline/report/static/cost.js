// What a plan takes beside training everything: as engine/cost reckons it, which a test compares it with.

/** Reckon seconds of an epoch, with what is frozen stored in memory and without, and bytes of activations. */
export function costOf(model, plan, costs) {
  const units = model.units.map((unit) => unitCost(unit, costs.units[unit.place], plan));
  const line = units.findIndex((unit) => unit.trainable > 0);
  if (line < 0) return null;
  const { rows, speeds, constants } = costs;
  const prefix = prefixSeconds(units, line, speeds);
  const steps = stepSeconds(units, line, costs) * (1 + constants.guard);
  const canStore = costs.keeps && units.slice(0, line).some((unit) => unit.parameters > 0);
  const isAtLayer = units.slice(line).some((unit) => unit.kind === "layer");
  const rowBytes = isAtLayer ? 0 : speeds.head_row_bytes;
  const size = rows.rows * rowBytes + rows.tokens * (isAtLayer ? speeds.token_bytes : speeds.head_token_bytes);
  return {
    canStore,
    stored: canStore ? size / speeds.memory.read + steps : null,
    fill: canStore ? rows.tokens * prefix + size / speeds.memory.write : null,
    anew: rows.tokens * prefix * speeds.anew + steps,
    activations: activationBytes(units, line, costs),
  };
}

function unitCost(unit, cost, plan) {
  const trained = unit.parameters.filter((one) => !plan.frozen.has(one.place));
  const flops = sum(cost.products, ([, count]) => count);
  const withGradient = sum(cost.products, ([place, count]) => (plan.frozen.has(place) ? 0 : count));
  return {
    ...cost,
    parameters: unit.count,
    trainable: sum(trained, (one) => one.count),
    trainableBytes: sum(trained, (one) => one.bytes),
    trainedShare: flops ? withGradient / flops : Number(trained.length > 0),
  };
}

function sum(rows, of) {
  return rows.reduce((total, row) => total + of(row), 0);
}

function prefixSeconds(units, line, speeds) {
  const beneath = units.slice(0, line);
  const layers = beneath.filter((unit) => unit.kind === "layer").length;
  const hasEmbeddings = beneath.some((unit) => unit.kind === "embeddings");
  let seconds = layers * speeds.fill_layer + (hasEmbeddings ? speeds.fill_embeddings : 0);
  if (layers && !units.slice(line).some((unit) => unit.kind === "layer")) seconds += speeds.fill_last - speeds.fill_layer;
  return seconds;
}

function stepSeconds(units, line, { rows, speeds, constants }) {
  const above = units.slice(line);
  const layers = above.filter((unit) => unit.kind === "layer").reverse();
  let seconds = 0;
  layers.forEach((unit, place) => {
    const whole = [speeds.last, speeds.lowest][place] ?? speeds.layer;
    seconds += whole * (1 - (1 - unit.trainedShare) * constants.weights);
  });
  if (above.some((unit) => unit.kind === "embeddings")) {
    seconds += speeds.embeddings;
    if (layers.length > 1) seconds += Math.max(0, speeds.layer - speeds.lowest);
  }
  const each = speeds.overhead + sum(units, (unit) => unit.trainable) * speeds.parameter;
  return rows.tokens * seconds + rows.rows * speeds.head + rows.steps * each;
}

function activationBytes(units, line, { rows, speeds, constants, is_half: isHalf }) {
  const above = units.slice(line);
  const last = speeds.one_position ? above.findLast((unit) => unit.kind === "layer") : undefined;
  const whole = above.filter((unit) => !unit.per_row && unit !== last);
  const way = constants.on_the_way * Math.max(0, ...whole.map((unit) => unit.saved));
  const perToken = sum(whole, (unit) => unit.saved) + way + (last ? constants.of_last * last.width : 0);
  const perRow = sum(above.filter((unit) => unit.per_row || unit === last), (unit) => unit.saved);
  const kept = rows.largest * perToken + rows.batch_size * perRow;
  const masks = rows.largest * rows.met * sum(whole, (unit) => unit.heads);
  const cast = above.filter((unit) => unit.kind !== "embeddings");
  const casts = isHalf ? sum(cast, (unit) => Math.floor(unit.trainableBytes / 2)) : 0;
  return Math.round(kept * (isHalf ? 2 : 4) + masks) + casts;
}
