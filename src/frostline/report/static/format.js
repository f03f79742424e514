// Figures and names of others, as people read them.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const JOINERS = new Set(["\u200c", "\u200d"]);

/** Write out what would steer the order of text instead of showing: as base/escaping.py does. */
export function shown(text) {
  return text.replace(HIDDEN, (sign) => (JOINERS.has(sign) ? sign : escaped(sign.codePointAt(0))));
}

function escaped(code) {
  const short = { 9: "\\t", 10: "\\n", 13: "\\r" }[code];
  if (short) return short;
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** A whole number with separators: 1,234,567. */
export function whole(count) {
  return count.toLocaleString("en-US");
}

/** A count in few signs: 7.09 M. */
export function short(count) {
  for (const [unit, size] of [["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (count >= size) return `${(count / size).toPrecision(3)} ${unit}`;
  }
  return `${count}`;
}

/** Bytes in powers of ten, as the table of `frostline inspect` has them: 7.10 MB. */
export function bytes(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= size) return `${(count / size).toFixed(2)} ${unit}`;
  }
  return `${count} B`;
}

/** A share in percent, never rounded to nothing or to all. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0 || value === 100) return `${value} %`;
  if (value < 0.001) return "less than 0.001 %";
  if (value > 99.99) return "more than 99.99 %";
  return `${value < 10 ? Number(value.toPrecision(2)) : value.toFixed(value >= 99 ? 2 : 0)} %`;
}
