// Keeps pages up to date. The server renders everything; this fetches the same page again and puts its changed parts in
// place, so that there is one way to draw a job, and none that could be fed markup. Without it pages load themselves again.
"use strict";

const main = document.getElementById("main");
const LIST_PAUSE_MS = 3000;
const JOB_PAUSE_MS = 1500;
const LONGEST_PAUSE_MS = 30000;

function pause(failures, usual) {
  return failures ? Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** (failures - 1)) : usual;
}

function lost(yes) {
  document.getElementById("connection").hidden = !yes;
}

// Parts that are open, scrolled or focused stay so.
function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const open = [...old.querySelectorAll("details")].map((part) => part.open);
  const top = old.scrollTop;
  old.replaceWith(fresh);
  fresh.querySelectorAll("details").forEach((part, index) => { part.open = open[index] ?? part.open; });
  fresh.scrollTop = top;
  offerCopies(fresh);
  if (!focused) return;
  const href = focused.getAttribute("href");
  const same = (focused.id && document.getElementById(focused.id)) || (href && fresh.querySelector(`a[href="${CSS.escape(href)}"]`));
  (same || main).focus({ preventScroll: true });
}

let said = document.getElementById("head")?.dataset.say;

// Gives the fresh page, or null where the server could not be asked.
async function refresh() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  } catch {
    return null;
  }
  if (answer.redirected) { // the session has ended
    location.reload();
    return null;
  }
  if (!answer.ok) return null;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (old && old.dataset.was !== part.outerHTML && old.outerHTML !== part.outerHTML) {
      const was = part.outerHTML;
      replace(old, document.adoptNode(part));
      part.dataset.was = was;
    }
  }
  document.title = fresh.title;
  const now = document.getElementById("head")?.dataset.say;
  if (now !== said) document.getElementById("announce").textContent = said = now;
  return fresh;
}

function watchList() {
  let failures = 0;
  const look = async () => {
    // Nobody looks, or somebody is at it.
    if (!document.hidden) {
      failures = (await refresh()) ? 0 : failures + 1;
      lost(failures > 1);
    }
    setTimeout(look, pause(failures, LIST_PAUSE_MS));
  };
  setTimeout(look, LIST_PAUSE_MS);
}

function watchJob() {
  const isOpen = () => document.getElementById("head").dataset.open === "true";
  if (!isOpen()) return;
  let after = main.dataset.after;
  let failures = 0;
  let pending = false;
  let source = null;

  // Events say when to look; however many come at once, one look shows them all.
  const look = async () => {
    if (pending) return;
    pending = true;
    await refresh();
    pending = false;
    if (!isOpen()) source?.close();
  };

  const kinds = ["queued", "retried", "started", "stage", "requeued", "cancelling", "succeeded", "failed", "cancelled"];
  const listen = () => {
    source = new EventSource(`${main.dataset.events}?after=${encodeURIComponent(after)}`);
    source.onopen = () => { failures = 0; lost(false); look(); };
    source.onerror = () => {
      if (!isOpen()) { source.close(); return; }
      failures += 1;
      lost(failures > 1);
      // While it is connecting the browser tries again by itself, from the last event on. Where it has given up, we do.
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, pause(failures, 1000));
    };
    for (const kind of kinds) {
      source.addEventListener(`job.${kind}`, (event) => { after = event.lastEventId || after; look(); });
    }
  };
  listen();

  // Steps within a stage are no events.
  const tick = async () => {
    if (!isOpen()) return;
    if (!document.hidden && source.readyState === EventSource.OPEN) await look();
    setTimeout(tick, JOB_PAUSE_MS);
  };
  setTimeout(tick, JOB_PAUSE_MS);
}

function offerCopies(within) {
  if (!navigator.clipboard) return;
  for (const block of within.querySelectorAll("pre[data-copy]")) {
    const frame = document.createElement("div");
    const button = document.createElement("button");
    frame.className = "copied";
    button.type = "button";
    button.textContent = "Copy";
    block.replaceWith(frame);
    frame.append(block, button);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

// The slider of other budgets: everything that it shows came with the page.
document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-explore]");
  if (!form) return;
  form.budgets ??= JSON.parse(form.dataset.explore);
  const chosen = form.budgets.find((own) => own.keep === Number(event.target.value));
  if (!chosen) return;
  for (const place of form.querySelectorAll("[data-show]")) place.textContent = chosen[place.dataset.show];
  const here = document.getElementById("here");
  if (here && chosen.x !== null) { here.setAttribute("cx", chosen.x); here.setAttribute("cy", chosen.y); }
});
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
document.querySelector("[data-focus]")?.focus();
offerCopies(document);
if (main.dataset.live === "list") watchList();
if (main.dataset.live === "job") watchJob();
