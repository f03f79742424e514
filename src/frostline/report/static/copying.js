// Copying a text, where the clipboard may be closed to a page opened from disk.

import { shown } from "./format.js";

/** Copy a text; gives whether that worked. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "off-screen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Let the buttons beneath an element copy texts: `textOf(name)` is what the button of that name copies. */
export function makeCopying(root, textOf) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const done = await copyText(textOf(button.dataset.copy));
      button.textContent = done ? "Copied" : "Copy failed";
      setTimeout(() => (button.textContent = label), 1500);
    });
  }
}

/** Show texts to copy; what there is nothing of says so. */
export function showTexts(root, texts, empty) {
  for (const [name, text] of Object.entries(texts)) {
    root.querySelector(`[data-part="${name}"]`).textContent = text.split("\n").map(shown).join("\n") || empty[name];
    root.querySelector(`[data-copy="${name}"]`).disabled = !text;
  }
}
