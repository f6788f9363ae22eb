// Keys of the page; the dialog in index.html lists them.

const TYPING = new Set(["text", "search"]);

export function listen(actions, isOpen) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    const typing = target.tagName === "SELECT" || (target.tagName === "INPUT" && TYPING.has(target.type));
    if (typing) {
      if (event.key === "Escape") target.blur();
      return;
    }
    // Sliders, radio buttons and lists have uses of their own for the arrows.
    if (event.key.startsWith("Arrow") && target !== document.body && !target.closest("#stage")) return;
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action || (!isOpen() && !["/", "?", "j"].includes(event.key))) return;
    event.preventDefault();
    action();
  });
}
