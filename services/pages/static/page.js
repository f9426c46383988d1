"use strict";
// Replaces the content every two seconds; what the reader has opened or closed stays so.
(() => {
  const content = document.getElementById("content");
  const contact = document.getElementById("contact");
  const touched = new Map();

  content.addEventListener("click", (event) => {
    const card = event.target.closest("summary")?.parentElement;
    if (card) touched.set(card.id, !card.open);
  });

  async function refresh() {
    try {
      const answer = await fetch("/fragment", { cache: "no-store", signal: AbortSignal.timeout(15000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const focused = document.activeElement?.closest?.("details")?.id;
      const selecting = String(document.getSelection()) !== "";
      const text = await answer.text();
      if (!selecting) {
        content.innerHTML = text;
        for (const [id, open] of touched) {
          const card = document.getElementById(id);
          if (card) card.open = open;
        }
        if (focused) document.getElementById(focused)?.querySelector("summary")?.focus();
      }
      contact.hidden = true;
    } catch {
      contact.hidden = false;
    }
    setTimeout(refresh, document.hidden ? 10000 : 2000);
  }

  setTimeout(refresh, 2000);
})();
