"use strict";
// Shows a new reading as soon as the daemon has one. Without this script the page loads itself again.

const main = () => document.getElementById("main");
const PATIENCE_MS = 15000;

// What has the keyboard's focus keeps it: it is found again by its id, or by where it leads.
function sameAs(old) {
  if (!old || old === document.body) return null;
  const selector = old.id ? `#${CSS.escape(old.id)}` : `a[href="${CSS.escape(old.getAttribute("href") || "")}"]`;
  return main().querySelector(selector);
}

function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.getElementById("main");
  if (!fresh) return;
  const focused = main().contains(document.activeElement) ? document.activeElement : null;
  const scrolled = [...main().querySelectorAll(".scroll")].map((box) => [box.id, box.scrollLeft]);
  main().replaceWith(fresh);
  for (const [id, left] of scrolled) {
    const box = document.getElementById(id);
    if (box) box.scrollLeft = left;
  }
  const again = sameAs(focused);
  if (again) again.focus({ preventScroll: true });
  tell(page.getElementById("headline"));
  document.title = page.title;
}

// A screen reader reads the headline out when it changes, and only then.
function tell(fresh) {
  const headline = document.getElementById("headline");
  if (headline.textContent === fresh.textContent) return;
  headline.textContent = fresh.textContent;
  headline.className = fresh.className;
}

async function load() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    show(await answer.text());
  } catch {
    const headline = document.getElementById("headline");
    headline.textContent = "The daemon does not answer: what is shown is old";
    headline.className = "bad";
  }
}

if (document.getElementById("headline")) {
  const changes = new EventSource("/changes");
  let timer = setInterval(load, PATIENCE_MS);
  changes.onmessage = (event) => {
    clearInterval(timer);
    timer = setInterval(load, PATIENCE_MS);
    if (event.data !== main().dataset.reading) load();
  };
}
