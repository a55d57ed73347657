// Without this script the page works, too: links and forms load it again. The script replaces only
// <main>, so that the scroll position and the focus stay.
"use strict";
let newest = 0;

async function show(url, { record = history.pushState, focus = "", scroll = false } = {}) {
  const number = ++newest;
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  const status = document.getElementById("status");
  let page, fresh;
  try {
    const response = await fetch(url);
    page = new DOMParser().parseFromString(await response.text(), "text/html");
    fresh = page.querySelector("main");
    url = response.url;
  } catch {
    // The explorer was stopped.
  }
  if (number !== newest) return; // a later answer is on its way
  status.className = fresh ? "hidden" : "fail";
  if (!fresh) {
    main.removeAttribute("aria-busy");
    status.textContent = "The explorer does not answer. Is it still running?";
    return;
  }
  const field = focus && document.getElementById(focus);
  const typed = field && [field.value, field.selectionStart];
  const open = [...main.querySelectorAll("details[open]")].map((part) => part.id);
  main.replaceWith(fresh);
  for (const part of fresh.querySelectorAll("details")) part.open ||= open.includes(part.id);
  document.title = page.title;
  record?.call(history, null, "", url);
  const again = focus && document.getElementById(focus);
  if (again) {
    again.focus({ preventScroll: !scroll });
    if (again.type === "search") {
      again.value = typed[0];
      again.setSelectionRange(typed[1], typed[1]);
    }
  }
  const lists = [...fresh.querySelectorAll("ol.items")].map((list) => list.children.length);
  status.textContent = `${lists.join(" and ")} items are shown.`;
}

function address(form) {
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  return "./?" + new URLSearchParams(given);
}

// After a link, the focus goes to what it has opened, or to the part of the page that it belongs to.
const OPENED = { Similar: "similar-title", Why: "why-title" };
const PARTS = { "#found": "found", "#history": "history-title" };

document.addEventListener("click", (event) => {
  const link = event.target.closest("main a");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const opened = OPENED[link.firstChild.textContent];
  const part = Object.keys(PARTS).find((name) => link.closest(name));
  show(link.href, { focus: opened ?? PARTS[part] ?? "answers", scroll: Boolean(opened) });
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  show(address(event.target), { focus: event.target.querySelector("[id]").id });
});

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (form && event.target.type !== "search") show(address(form), { focus: event.target.id });
});

let timer;
document.addEventListener("input", (event) => {
  if (event.target.type !== "search") return;
  clearTimeout(timer);
  const record = history.replaceState; // no entry for each letter
  timer = setTimeout(() => show(address(event.target.form), { focus: "t", record }), 150);
});

addEventListener("popstate", () => show(location.href, { record: null }));
