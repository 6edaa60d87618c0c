"use strict";

const VIEWS = ["cutout", "outline", "source"];
const VIEW_NAMES = { cutout: "cut-out", outline: "outline", source: "source" };
const WHY = {
  disagreement: "The judges disagree.",
  audit: "A random check of the judge. What it said is shown once you have decided.",
};
const PAGE_SIZE = 8;
const PREFETCH_BELOW = 3;

const $ = (id) => document.getElementById(id);
const state = { entry: null, upcoming: [], position: -1, view: "cutout", busy: false, who: "", decided: 0, total: 0 };

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached, so nothing was saved just now. Start the review again in the terminal.");
  }
  if (answer.status === 401) throw new Error("This page is of an earlier server. Open the address that the terminal shows.");
  const content = await answer.json();
  if (answer.status === 409) return { taken: content };
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function say(text, alarm = false) {
  $("said").textContent = text;
  $("said").classList.toggle("alarm", alarm);
}

function showProgress({ decided, total, by }) {
  Object.assign(state, { decided, total });
  $("bar").max = Math.max(total, 1);
  $("bar").value = decided;
  $("count").textContent = `${decided} of ${total} decided`;
  const names = Object.entries(by).map(([name, count]) => `${name || "unnamed"} ${count}`);
  $("who").textContent = names.length > 1 ? names.join(" · ") : state.who;
}

async function fetchMore() {
  const content = await ask(`api/queue?after=${state.position}&limit=${PAGE_SIZE}`);
  state.who = content.reviewer;
  $("command").textContent = content.command;
  showProgress(content.progress);
  state.upcoming.push(...content.entries);
  if (content.entries.length) state.position = content.entries.at(-1).position;
}

/** The next undecided image; behind the last one those that were skipped come again. */
async function advance() {
  if (state.upcoming.length < PREFETCH_BELOW) await fetchMore();
  if (!state.upcoming.length) {
    state.position = -1;
    await fetchMore();
  }
  show(state.upcoming.shift() ?? null);
}

function show(entry) {
  state.entry = entry;
  $("work").hidden = entry === null;
  $("done").hidden = entry !== null;
  if (entry === null) {
    showDone();
    return;
  }
  $("category").textContent = entry.category;
  $("why").textContent = WHY[entry.why];
  $("told").replaceChildren(...(entry.told ? toldToNodes(entry.told) : []));
  document.querySelector("aside").scrollTop = 0;
  showView(entry.views.includes(state.view) ? state.view : "cutout");
  const next = state.upcoming[0];
  if (next) new Image().src = pictureOf(next, "cutout");
}

function showDone() {
  $("done-title").textContent = state.total ? "All decided" : "Nothing waits for a person";
  $("done-sums").textContent = state.total ? `${state.decided} of ${state.total} images have a verdict, and every one is saved.` : "";
  $("undo-last").hidden = !state.decided;
  $("done-title").focus();
}

const pictureOf = (entry, view) => `api/picture/${encodeURIComponent(entry.id)}/${view}`;

/** Nothing can be decided before the picture is there, so no verdict falls on one that nobody saw. */
function showView(view) {
  const { entry } = state;
  if (!entry.views.includes(view)) return;
  state.view = view;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.hidden = !entry.views.includes(button.dataset.view);
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  setReady(false);
  $("broken").hidden = true;
  $("picture").hidden = false;
  $("picture").alt = `${VIEW_NAMES[view]} of ${entry.category}`;
  $("picture").src = pictureOf(entry, view);
}

function setReady(ready) {
  document.querySelector(".stage").classList.toggle("loading", !ready);
  $("keep").disabled = $("reject").disabled = !ready;
}

function element(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

function criteriaToList(criteria) {
  const list = element("ul", "", "criteria");
  for (const { name, outcome, reason } of criteria) {
    const line = element("li", "");
    line.append(element("span", name.replaceAll("_", " ")), element("span", outcome, outcome));
    if (reason) line.append(element("small", reason));
    list.append(line);
  }
  return list;
}

function headline(title, keep) {
  const node = element("h2", title);
  node.append(element("span", keep ? "keep" : "reject", keep ? "meet" : "fail"));
  return node;
}

function toldToNodes({ measures, judges }) {
  const nodes = judges.flatMap(({ judge, keep, description, criteria }) => [
    headline(judge, keep),
    ...(description ? [element("p", description, "description")] : []),
    criteriaToList(criteria),
  ]);
  if (measures.length) nodes.push(headline("Measures", measures.every(({ outcome }) => outcome === "meet")), criteriaToList(measures));
  return nodes;
}

function toldToText({ keep, measures, judges }) {
  const unmet = [...judges.flatMap(({ criteria }) => criteria), ...measures].filter(({ outcome }) => outcome !== "meet");
  const reasons = [...new Set(unmet.map(({ name, reason }) => reason || name))].slice(0, 2).join("; ");
  return `the judge said: ${keep ? "keep" : "reject"}${reasons ? ` (${reasons})` : ""}`;
}

async function decide(keep) {
  if (!state.entry || $(keep ? "keep" : "reject").disabled) return;
  const { entry } = state;
  const { taken, told, progress } = await ask("api/decide", { id: entry.id, keep });
  if (taken) {
    say(`${taken.by || "Somebody"} has ${taken.keep ? "kept" : "rejected"} this ${entry.category} already; here is the next.`, true);
  } else {
    showProgress(progress);
    say(`${keep ? "Kept" : "Rejected"} the ${entry.category}${entry.why === "audit" ? `; ${toldToText(told)}` : ""}.`);
  }
  await advance();
}

async function undo() {
  const { taken, entry, progress } = await ask("api/undo", {});
  if (taken) {
    say("The run has gone on with your last verdict; it can no longer be undone.", true);
    return;
  }
  showProgress(progress);
  if (!entry) {
    say("Nothing to undo.");
    return;
  }
  // What was shown comes next again; it may be the image that is taken back, after a skip.
  state.upcoming = [state.entry, ...state.upcoming].filter((one) => one && one.id !== entry.id);
  show(entry);
  say(`Taken back: this ${entry.category} waits again.`);
}

async function skip() {
  if (!state.entry) return;
  say("Skipped; it comes again at the end.");
  await advance();
}

/** One action at a time; what goes wrong is said, and nothing is lost by it. */
async function act(action) {
  if (state.busy) return;
  setBusy(true);
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  } finally {
    setBusy(false);
  }
}

function setBusy(busy) {
  state.busy = busy;
  document.body.setAttribute("aria-busy", String(busy));
}

const KEYS = {
  k: () => act(() => decide(true)), ArrowRight: () => act(() => decide(true)),
  r: () => act(() => decide(false)), ArrowLeft: () => act(() => decide(false)),
  u: () => act(undo), n: () => act(skip), " ": () => act(skip),
  1: () => state.entry && showView(VIEWS[0]), 2: () => state.entry && showView(VIEWS[1]), 3: () => state.entry && showView(VIEWS[2]),
};

document.addEventListener("keydown", (event) => {
  const pressesButton = event.target instanceof HTMLButtonElement && event.key === " ";
  const handler = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!handler || pressesButton || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  handler();
});
// A mouse leaves no focus behind, or the next press of the space bar would repeat the click.
document.addEventListener("click", ({ target, detail }) => detail && target.closest("button")?.blur());
for (const [id, action] of [["keep", () => decide(true)], ["reject", () => decide(false)], ["undo", undo], ["undo-last", undo], ["skip", skip]]) {
  $(id).addEventListener("click", () => act(action));
}
for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => showView(button.dataset.view));
$("picture").addEventListener("load", ({ target }) => {
  target.style.setProperty("--ratio", String(target.naturalWidth / target.naturalHeight));
  setReady(true);
});
$("picture").addEventListener("error", () => {
  $("broken").hidden = false;
  $("picture").hidden = true;
  setReady(true);
  $("keep").disabled = true;
});

history.replaceState(null, "", "/");  // the token leaves the address, and with it screenshots and bookmarks
act(advance);
