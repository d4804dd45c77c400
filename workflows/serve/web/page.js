"use strict";
// Look up a user. Texts of the data are only inserted as text nodes, never as HTML.

const $ = (id) => document.getElementById(id);
const SIMILAR = 5, HISTORY = 50;
let latest = 0; // number of the latest request; answers to earlier requests are ignored

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

async function get(path, parameters = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.append(name, value);
  const key = $("key").value;
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(url, { headers });
  const body = await response.json();
  if (response.ok) return body;
  if (response.status === 401) $("key-label").hidden = false;
  const faults = body.faults.map((f) => `${f.field}: got ${f.got}; expected ${f.expected}`);
  throw new Error(faults.join(" · "));
}

const idPath = (id) => encodeURIComponent(id);
const nameOf = (shown) => Object.values(shown.labels).filter((text) => text).join(" · ") || shown.item;

// Lengths of the bars: 1 for the highest score, 0 for the lowest (or for 0, if that is lower).
function barLengths(items) {
  const scores = items.map((item) => item.score);
  const low = Math.min(0, ...scores), high = Math.max(...scores);
  return scores.map((score) => (high > low ? (score - low) / (high - low) : 1));
}

function title(shown) {
  const name = nameOf(shown);
  const text = make("span", { className: "title", dir: "auto" }, name);
  if (name !== shown.item) text.append(" ", make("small", {}, shown.item));
  return text;
}

// An item is a button that shows its most similar items.
function entry(shown, rank, share) {
  const button = make("button", { className: "item", type: "button" });
  button.setAttribute("aria-expanded", "false");
  button.append(make("span", { className: "rank" }, String(rank)), title(shown));
  if (share !== undefined) {
    button.append(make("span", { className: "score" }, shown.score.toFixed(3)));
    const bar = make("i");
    bar.style.width = `${Math.round(100 * share)}%`;
    const whole = make("span", { className: "bar" }, bar);
    whole.setAttribute("aria-hidden", "true");
    button.append(whole);
  }
  const line = make("li", {}, button);
  line.dataset.item = shown.item;
  button.addEventListener("click", () => toggle(line, button, shown));
  return line;
}

async function toggle(line, button, shown) {
  const open = line.querySelector(".similar");
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    open.remove();
    return;
  }
  const place = make("div", { className: "similar" }, make("p", { className: "note" }, "…"));
  line.append(place);
  try {
    const answer = await get(`similar-items/${idPath(shown.item)}`, { k: SIMILAR });
    const list = make("ol");
    for (const item of answer.items)
      list.append(make("li", {}, title(item), make("span", { className: "score" }, item.score.toFixed(3))));
    place.replaceChildren(make("p", { className: "note" }, `Most similar to ${nameOf(shown)}`), list);
    $("status").textContent = `${answer.items.length} items similar to ${nameOf(shown)}`;
  } catch (error) {
    place.replaceChildren(make("p", { className: "note" }, error.message));
  }
}

async function lookUp() {
  const mine = ++latest;
  const user = $("user").value;
  const options = { k: $("k").value };
  if ($("seen").checked) options.keep_seen = "true";
  if ($("only").value) options.only = $("only").value;
  $("fault").hidden = true;
  $("status").textContent = "…";
  try {
    const [list, history] = await Promise.all([
      get(`recommend/${idPath(user)}`, options),
      get(`history/${idPath(user)}`, { k: HISTORY }),
    ]);
    if (mine !== latest) return;
    show(list, history);
  } catch (error) {
    if (mine !== latest) return;
    $("answer").hidden = true;
    $("status").textContent = "";
    $("fault").textContent = error.message;
    $("fault").hidden = false;
  }
}

function show(list, history) {
  const widths = barLengths(list.items);
  $("list").replaceChildren(...list.items.map((item, n) => entry(item, item.rank, widths[n])));
  $("history").replaceChildren(...history.items.map((item, n) => entry(item, n + 1)));
  $("by").textContent = list.answered_by;
  $("history-note").textContent = history.known
    ? `newest first${history.items.length === HISTORY ? `, the last ${HISTORY}` : ""}`
    : "no user with this id is known";
  $("status").textContent =
    `${list.items.length} items for ${list.user}, recommended by ${list.answered_by}`;
  $("answer").hidden = false;
}

$("query").addEventListener("submit", (event) => {
  event.preventDefault();
  history.replaceState(null, "", `?user=${idPath($("user").value)}`);
  lookUp();
});

get("health").then((health) => {
  $("name").textContent = health.recipe;
  document.title = `${health.recipe}: two-tower`;
  const count = (n) => n.toLocaleString("en");
  $("facts").textContent = `${count(health.users)} users, ${count(health.items)} items, as of ` +
    `${health.as_of}; export ${health.export}, ${health.exported}`;
});

const linked = new URLSearchParams(location.search).get("user");
if (linked) {
  $("user").value = linked;
  lookUp();
}
