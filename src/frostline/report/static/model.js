// The model of a page: units with their parameters, read from the JSON in it.

/** Read a tower: each unit and parameter gets its place; parameters come as rows. */
export function readModel(data) {
  const parameters = [];
  const units = data.units.map((unit, place) => ({
    ...unit,
    place,
    parameters: unit.parameters.map((row) => {
      const [name, shape, dtype, size, trains, origin, kinds, term] = row;
      const count = shape.reduce((product, side) => product * side, 1);
      const one = { name, shape, dtype, bytes: size, trains, origin, kinds, term: term ?? name, count };
      parameters.push({ ...one, place: parameters.length, unit: place });
      return parameters.at(-1);
    }),
  }));
  for (const unit of units) {
    unit.count = unit.parameters.reduce((sum, one) => sum + one.count, 0);
    unit.bytes = unit.parameters.reduce((sum, one) => sum + one.bytes, unit.buffer_bytes);
    unit.isNew = unit.parameters.some((one) => one.origin === "new");
  }
  const kinds = ["bias", "norms", "adapters"].map((kind) => ({
    name: kind,
    parameters: parameters.filter((one) => one.kinds.includes(kind)),
  }));
  return { ...data, units, parameters, kinds };
}

/** The units of a tower by where they are drawn: columns side by side, and what they share above and beneath. */
export function columnsOf(model) {
  const names = [...new Set(model.units.filter((unit) => unit.kind === "layer").map((unit) => unit.stack))];
  if (names.length < 2) return { base: [], columns: [{ name: "", units: model.units }], top: [] };
  const isOf = (unit, name) => unit.stack === name && !(name === "" && unit.kind === "head");
  const columns = names.map((name) => ({ name, units: model.units.filter((unit) => isOf(unit, name)) }));
  const rest = model.units.filter((unit) => !names.some((name) => isOf(unit, name)));
  const base = rest.filter((unit) => unit.kind === "embeddings");
  return { base, columns, top: rest.filter((unit) => unit.kind !== "embeddings") };
}

/** The units that hold one of a unit's tensors too. */
export function tiedUnits(model, unit) {
  const home = new Map();
  for (const other of model.units) {
    for (const name of [...other.parameters.map((one) => one.name), ...other.aliases]) home.set(name, other);
  }
  const names = new Set([...unit.parameters.map((one) => one.name), ...unit.aliases]);
  const groups = model.tied.filter((group) => group.some((name) => names.has(name)));
  const others = groups.flat().map((name) => home.get(name));
  return [...new Set(others)].filter((other) => other && other !== unit);
}
