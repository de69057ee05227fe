// The history is in the address (?item=ID&item=ID&search=WORDS&k=N), so that a page can be saved and shared.
"use strict";

const part = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
let length = Math.min(Math.max(Number.parseInt(address.get("k") || "10", 10) || 10, 1), 100);
let history_ = [];
let before = null;
let turn = 0;

async function answer(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error.message);
  return content;
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}

function row(item, label, act, first = [], last = []) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = label;
  button.dataset.id = item.item_id;
  const title = span("title", item.title || item.item_id);
  if (item.title && item.title !== item.item_id) title.append(" ", span("id", item.item_id));
  button.append(...first, title, ...last);
  button.addEventListener("click", act);
  const made = document.createElement("li");
  made.append(button);
  return made;
}

function move(item, rank) {
  if (before === null) return [];
  if (!before.has(item.item_id)) return [span("move new", "new")];
  const steps = before.get(item.item_id) - rank;
  if (!steps) return [span("move", "")];
  return [steps > 0 ? span("move up", `▲ ${steps}`) : span("move down", `▼ ${-steps}`)];
}

function add(item) {
  history_.push({ item_id: item.item_id, title: item.title });
  changed();
}

function remember() {
  const shown = new URLSearchParams();
  for (const item of history_) shown.append("item", item.item_id);
  if (part("search").value) shown.set("search", part("search").value);
  if (address.has("k")) shown.set("k", String(length));
  const text = shown.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

async function changed() {
  remember();
  part("history").replaceChildren(...history_.map((item, place) => row(item, "Take out of the history", () => {
    history_.splice(place, 1);
    changed();
  })));
  part("empty").hidden = history_.length > 0;
  part("clear").hidden = history_.length === 0;
  part("error").textContent = "";
  const mine = ++turn;
  if (!history_.length) {
    part("list").replaceChildren();
    part("took").textContent = "";
    before = null;
    return;
  }
  const start = performance.now();
  try {
    const found = await answer("v1/recommend", { history: history_.map((item) => item.item_id), k: length });
    if (mine !== turn) return;
    part("list").replaceChildren(...found.items.map((item) => row(item, "Add to the history", () => add(item),
      [span("rank", String(item.rank)), ...move(item, item.rank)], [span("score", item.score.toFixed(2))])));
    part("took").textContent = `${found.items.length} items in ${Math.round(performance.now() - start)} ms`;
    before = new Map(found.items.map((item) => [item.item_id, item.rank]));
  } catch (error) {
    if (mine === turn) part("error").textContent = error.message;
  }
}

let waiting = 0;
let searched = 0;

async function search() {
  remember();
  const mine = ++searched;
  try {
    const found = await answer(`v1/items?limit=12&search=${encodeURIComponent(part("search").value.slice(0, 200))}`);
    if (mine !== searched) return;
    const rows = found.items.map((item) => row(item, "Add to the history", () => add(item)));
    const none = document.createElement("li");
    none.textContent = "No item has all of these words.";
    part("found").replaceChildren(...(rows.length ? rows : [none]));
  } catch (error) {
    if (mine === searched) part("error").textContent = error.message;
  }
}

async function begin() {
  part("search").value = address.get("search") || "";
  part("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
  part("clear").addEventListener("click", () => {
    history_ = [];
    changed();
  });
  const ids = address.getAll("item");
  try {
    const model = await answer("v1/model");
    length = Math.min(length, model.limits.k);
    part("run").textContent = model.run;
    part("about").textContent = `${model.items.toLocaleString("en")} items of ${model.dataset}${model.step ? `, step ${model.step}` : ""}`;
    document.title = `${model.run}: recjax`;
    if (ids.length) {
      const found = await answer(`v1/items?${new URLSearchParams(ids.map((id) => ["item_id", id]))}`);
      history_ = found.items;
    }
  } catch (error) {
    part("error").textContent = error.message;
  }
  await search();
  await changed();
}

begin();
