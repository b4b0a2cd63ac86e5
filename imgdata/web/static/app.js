// The viewer's pages: a grid over any number of rows, one sample, an overview, review by keyboard.
// The whole state is in the address after `#`, so that a page can be bookmarked and sent. Text from the dataset is only
// ever set as text.

const MOST_PIXELS = 7_500_000; // Browsers cap the height of an element, Chrome near 16.7 million pixels.
const PAGE = 100; // Rows of one request.
const PAGES_KEPT = 60;
const FLING = 6; // Rows of cells scrolled by in a frame, from which no picture is asked for.
const WAIT_MS = 400; // Between two questions for what is still computed.
const UPLOAD = 700_000; // Characters of one request of an import.

let dataset = null;
let columns = null; // Columns of the `json` members, once they are read.
let state = {};
let current = null; // What has to be stopped when the page changes.

// --- small things ---------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** Return an element: `element("p", {class: "soft"}, "text", child)`; handlers are functions, the rest attributes. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const button = (text, click, attributes = {}) => element("button", { type: "button", click, ...attributes }, text);
const grouped = (number) => number.toLocaleString("en-US");
const percent = (share) => `${Math.round(share * 100)}%`;
const className = (label) => (label < 0 ? "no label" : (dataset.classes[label]?.[1] ?? `class ${label}`));
const classId = (label) => (label < 0 ? "" : dataset.classes[label][0]);
const classOfId = (id) => dataset.classes.findIndex((one) => one[0] === id);
const nameOfId = (id) => (classOfId(id) < 0 ? id : className(classOfId(id)));
const described = (row) => `${row.key}, ${className(row.label)}`;
const shortNumber = (value) =>
  Math.abs(value) >= 1000 ? grouped(Math.round(value)) : String(Number(value.toPrecision(3)));
const bytesText = (bytes) =>
  bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
const typingIn = (event) => event.target.closest("input, textarea, select") !== null;
const modified = (event) => event.ctrlKey || event.metaKey || event.altKey;

/** What the browser remembers between visits; frames may have no memory. */
const memory = {
  get(name) {
    try {
      return localStorage.getItem(`imgdata ${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`imgdata ${name}`, value);
    } catch {
      // Then it is forgotten.
    }
  },
};

let clearing = 0;
function say(text) {
  const message = byId("message");
  // Shown anew, so that it stands before a dialog that was opened since.
  message.hidePopover();
  message.textContent = text;
  message.showPopover();
  clearTimeout(clearing);
  clearing = setTimeout(() => message.hidePopover(), 7000);
}

/** Return the JSON of an address, asking again while it is computed; throws an `Error` with the server's message. */
async function ask(path, { waiting = () => {}, ...options } = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer; is `imgdata view` still running?", { cause: error });
    }
    const text = await response.text();
    let answer = {};
    try {
      answer = JSON.parse(text);
    } catch {
      answer = { error: text };
    }
    if (!response.ok) throw new Error(answer.error ?? `the server answers ${response.status}`);
    if (response.status !== 202) return answer;
    waiting(`${answer.waiting} …${answer.total ? ` ${percent(answer.done / answer.total)}` : ""}`);
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    options.signal?.throwIfAborted();
  }
}

const post = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/** Run an action of the user; its errors are said. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
    return null;
  }
}

// --- the address ----------------------------------------------------------------------------------------------------

const readState = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const isSet = ([, value]) => value !== "" && value !== null && value !== undefined;
const link = (changes) => `#${new URLSearchParams(Object.entries(changes).filter(isSet))}`;

/** Change the address. `replace`: keep the browser's history short; `quiet`: the page shows the change already. */
function go(changes, { replace = false, quiet = false } = {}) {
  const hash = link({ ...state, ...changes });
  if (hash === (location.hash || "#")) return;
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(null, "", hash);
  state = readState();
  if (!quiet) route();
}

const FILTERS = ["split", "class", "text", "format", "mark"];
const isFilter = (name) => FILTERS.includes(name) || /_(min|max)$/.test(name) || name.startsWith("is.");
const filters = () => Object.entries(state).filter(([name]) => isFilter(name));
const query = () => new URLSearchParams([...filters(), ...Object.entries(state).filter(([name]) => name === "sort")]);

// --- the filters ----------------------------------------------------------------------------------------------------

const BOUNDS = { width: "Width, px", height: "Height, px", size: "Bytes" };
let moreIsOpen = false;

function field(label, control, kind = "") {
  return element("label", { class: `field ${kind}` }, element("span", {}, label), control);
}

function choice(name, options, changed = (value) => go({ [name]: value, at: "" })) {
  const select = element("select", { name, change: () => changed(select.value) });
  for (const [value, text] of options) {
    if (Array.isArray(text)) {
      if (text.length) select.append(element("optgroup", { label: value }, text.map(([v, t]) => element("option", { value: v }, t))));
    } else select.append(element("option", { value }, text));
  }
  select.value = state[name] ?? "";
  // A set that is no longer there, or a cell of a confusion matrix.
  if (state[name] && select.value !== state[name]) {
    select.append(element("option", { value: state[name] }, state[name]));
    select.value = state[name];
  }
  return select;
}

let typing = 0;
function typed(name, attributes) {
  const input = element("input", {
    name,
    type: "search",
    value: state[name] ?? "",
    autocomplete: "off",
    ...attributes,
    input: () => {
      clearTimeout(typing);
      typing = setTimeout(() => go({ [name]: input.value.trim(), at: "" }), 250);
    },
  });
  return input;
}

const bound = (name, end, placeholder) =>
  typed(`${name}_${end}`, { type: "number", step: "any", placeholder, "aria-label": `${name}, ${end === "min" ? "from" : "to"}` });

function bounds(name, label, least = "from", most = "to") {
  return element(
    "fieldset",
    { class: "bounds" },
    element("legend", {}, label),
    bound(name, "min", least),
    element("span", { "aria-hidden": "true" }, "–"),
    bound(name, "max", most),
  );
}

/** A box in which a class is chosen by typing; `chosen` gets its number, -1 for no label. */
function classBox(id, placeholder, chosen, { value = "", none = false, empty = () => {} } = {}) {
  const list = element("ul", { class: "options", role: "listbox", id: `${id}-list`, hidden: true });
  const input = element("input", {
    id,
    type: "search",
    name: id,
    role: "combobox",
    "aria-expanded": "false",
    "aria-controls": `${id}-list`,
    "aria-autocomplete": "list",
    placeholder,
    value,
    autocomplete: "off",
    spellcheck: "false",
  });
  let found = [];
  let at = 0;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const take = (label) => {
    close();
    input.value = className(label);
    chosen(label);
  };
  const show = () => {
    const text = input.value.trim().toLowerCase();
    const all = dataset.classes.map(([key, name], label) => ({ label, key: key.toLowerCase(), name: name.toLowerCase() }));
    if (none) all.unshift({ label: -1, key: "none", name: "no label" });
    const begins = all.filter((one) => one.name.startsWith(text) || one.key.startsWith(text));
    const holds = all.filter((one) => !begins.includes(one) && one.name.includes(text));
    found = [...begins, ...holds].slice(0, 8);
    at = Math.min(at, Math.max(found.length - 1, 0));
    list.replaceChildren(
      ...found.map(({ label }, place) =>
        element(
          "li",
          { role: "option", id: `${id}-${place}`, "aria-selected": String(place === at), pointerdown: (event) => (event.preventDefault(), take(label)) },
          className(label),
          label >= 0 && classId(label) !== className(label) && element("span", { class: "soft" }, ` ${classId(label)}`),
        ),
      ),
    );
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    if (found.length) input.setAttribute("aria-activedescendant", `${id}-${at}`);
  };
  input.addEventListener("input", () => {
    at = 0;
    if (input.value === "") empty();
    show();
  });
  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", show);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      event.preventDefault();
      if (!list.hidden) at = (at + move + found.length) % found.length;
      show();
    } else if (event.key === "Enter") {
      event.preventDefault();
      event.stopPropagation();
      if (list.hidden) show();
      if (input.value.trim() === "") empty();
      else if (found.length) take(found[at].label);
      else say(`no class is named ${input.value}`);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      close();
    }
  });
  return element("span", { class: "combo" }, input, list);
}

function sets() {
  const decisions = ["accept", "relabel", "exclude", "flag", "skip", "conflict"];
  return [
    ["", "all"],
    ["Findings of the audit", Object.entries(dataset.findings).map(([kind, count]) => [`finding:${kind}`, `${kind} (${grouped(count)})`])],
    ["Predictions", dataset.runs.flatMap((name) => ["wrong", "right"].map((which) => [`run:${name}:${which}`, `${name} is ${which}`]))],
    ["Saved views", dataset.views.map((name) => [`view:${name}`, name])],
    ["Decisions", decisions.map((one) => [`decision:${one}`, one])],
  ];
}

function sortField() {
  const name = (state.sort ?? "").replace(/^-/, "");
  const names = ["key", "source", "width", "height", "pixels", "size", "label", ...dataset.columns, ...(columns ?? []).filter((one) => !one.words).map((one) => one.name)];
  const select = choice("sort", [["", "order of the shards"], ...names.map((one) => [one, one === "size" ? "bytes" : one.replace(/^json\./, "")])], (value) => go({ sort: value, at: "" }));
  const down = state.sort?.startsWith("-");
  select.value = name;
  return element(
    "span",
    { class: "sort" },
    field("Sort by", select),
    button(down ? "↓" : "↑", () => go({ sort: `${down ? "" : "-"}${name}`, at: "" }), {
      "aria-label": down ? "largest first; change to smallest first" : "smallest first; change to largest first",
      title: down ? "largest first" : "smallest first",
      disabled: name === "",
    }),
  );
}

function fillFilters() {
  const form = byId("filters");
  if ((state.page ?? "browse") !== "browse") {
    form.replaceChildren();
    return;
  }
  const focused = form.contains(document.activeElement) ? document.activeElement.name : "";
  const inMore = filters().filter(([name]) => name === "format" || /_(min|max)$/.test(name) || name.startsWith("is.")).length;
  const more = button(`${moreIsOpen ? "Less" : "More"}${inMore ? ` (${inMore})` : ""}`, () => {
    moreIsOpen = !moreIsOpen;
    fillFilters();
    byId("filters").elements.more.focus();
  }, { name: "more", "aria-expanded": String(moreIsOpen), "aria-controls": "more-filters" });
  form.classList.toggle("open", moreIsOpen);
  form.replaceChildren(
    element(
      "div",
      { class: "line" },
      field("Search", typed("text", { placeholder: "key or source name", "aria-label": "Key or source name holds" }), "search"),
      dataset.splits.length > 1 && field("Split", choice("split", [["", "all"], ...dataset.splits.map((one) => [one.name, one.name])]), "basic"),
      field(
        "Class",
        classBox("class-filter", "any", (label) => go({ class: label < 0 ? "none" : String(label), at: "" }), {
          value: state.class === undefined ? "" : state.class === "none" ? "no label" : className(Number(state.class)),
          none: true,
          empty: () => go({ class: "", at: "" }),
        }),
        "basic",
      ),
      field("Show", choice("mark", sets()), "basic"),
      element("span", { class: "basic" }, sortField()),
      more,
      filters().length > 0 && button("Clear", () => go({ ...Object.fromEntries(filters().map(([name]) => [name, ""])), at: "" }), { class: "quiet" }),
    ),
    ...(moreIsOpen ? [moreFilters()] : []),
  );
  if (focused) {
    const again = form.elements[focused];
    again?.focus();
    if (again?.type === "search") again.setSelectionRange(again.value.length, again.value.length);
  }
}

function moreFilters() {
  return element(
    "div",
    { class: "more", id: "more-filters" },
    field("Format", choice("format", [["", "any"], ...dataset.formats.map((one) => [one, one])])),
    ...Object.entries(BOUNDS).map(([name, label]) => bounds(name, label)),
    ...dataset.columns.map((name) => bounds(name, name)),
    ...metadataFilters(),
  );
}

function metadataFilters() {
  if (!dataset.has_json) return [];
  if (!columns) return [button("Read the metadata …", (event) => readColumns(event.target), { id: "read-metadata" })];
  return columns.map((one) => {
    const label = one.name.replace(/^json\./, "");
    if (one.words) return field(label, choice(`is.${one.name}`, [["", "any"], ...one.words.map((word) => [word, word])]));
    return bounds(one.name, label, `from ${one.least}`, `to ${one.most}`);
  });
}

async function readColumns(pressed) {
  pressed.disabled = true;
  const found = await attempt(() => ask("api/columns", { waiting: (text) => (pressed.textContent = text) }));
  if (!found) {
    pressed.disabled = false;
    return;
  }
  columns = found.columns;
  if (!columns.length) say("the metadata holds no numbers or words to filter by");
  fillFilters();
}

// --- rows from the server -------------------------------------------------------------------------------------------

/** Rows of the answer to a query, fetched page by page around what is shown; what is scrolled by is aborted. */
class Pages {
  constructor(parameters, arrived) {
    this.parameters = parameters;
    this.arrived = arrived;
    this.known = new Map();
    this.asked = new Map();
    this.total = null;
  }

  at(place) {
    return this.known.get(Math.floor(place / PAGE))?.[place % PAGE] ?? null;
  }

  /** Fetch what the places from `first` to `last` need, and abort what they don't. */
  want(first, last) {
    const from = Math.floor(first / PAGE);
    const to = Math.floor(Math.max(last, first) / PAGE);
    for (const [page, controller] of this.asked) {
      if (page < from - 1 || page > to + 1) {
        controller.abort();
        this.asked.delete(page);
      }
    }
    for (let page = from; page <= to; page++) {
      if (!this.known.has(page) && !this.asked.has(page)) this.fetch(page);
    }
  }

  async fetch(page) {
    const controller = new AbortController();
    this.asked.set(page, controller);
    const parameters = new URLSearchParams(this.parameters);
    parameters.set("start", page * PAGE);
    parameters.set("count", PAGE);
    const answer = await attempt(() =>
      ask(`api/rows?${parameters}`, { signal: controller.signal, waiting: (text) => (byId("count").textContent = text) }),
    );
    if (this.asked.get(page) === controller) this.asked.delete(page);
    if (!answer || controller.signal.aborted) return;
    this.total = answer.total;
    this.known.delete(page);
    this.known.set(page, answer.rows);
    while (this.known.size > PAGES_KEPT) this.known.delete(this.known.keys().next().value);
    this.arrived();
  }

  stop() {
    for (const controller of this.asked.values()) controller.abort();
    this.asked.clear();
  }
}

/** Some rows that are there already, in the place of `Pages`. */
class GivenRows {
  constructor(rows) {
    this.rows = rows;
    this.total = rows.length;
  }

  at(place) {
    return this.rows[place] ?? null;
  }

  want() {}

  stop() {}
}

// --- the grid -------------------------------------------------------------------------------------------------------

/** Cells of equal size over any number of rows: a few nodes, moved to where arithmetic says. */
class Grid {
  constructor(parent, { parameters = null, rows = null, place = 0, selecting = null, open, moved = () => {}, label = "Pictures", takesFocus = false }) {
    this.selecting = selecting;
    this.open = open;
    this.moved = moved;
    this.takesFocus = takesFocus;
    this.pages = rows ? new GivenRows(rows) : new Pages(parameters, () => this.draw());
    this.counts = rows === null;
    this.active = place;
    this.offset = 0; // In pixels of all rows of cells, however tall the spacer is.
    this.last = 0;
    this.nodes = new Map();
    this.free = [];
    this.layer = element("div", { class: "layer", role: "presentation" });
    this.spacer = element("div", { role: "presentation" }, this.layer);
    this.scroller = element("div", {
      class: "scroller",
      role: "grid",
      "aria-label": label,
      "aria-multiselectable": selecting ? "true" : null,
      scroll: () => this.scrolled(),
      keydown: (event) => this.key(event),
      click: (event) => this.clicked(event),
      focusin: (event) => this.focused(event),
      touchstart: (event) => this.touched(event),
    });
    this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.scroller.addEventListener("touchmove", (event) => this.dragged(event), { passive: false });
    this.scroller.addEventListener("touchend", (event) => this.released(event));
    this.scroller.append(this.spacer);
    parent.replaceChildren(this.scroller);
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(this.scroller);
    this.pages.want(place, place + PAGE);
  }

  stop() {
    this.resizing.disconnect();
    this.pages.stop();
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.gliding);
    clearTimeout(this.settling);
  }

  get rows() {
    return Math.ceil((this.pages.total ?? 0) / this.columns);
  }

  get scale() {
    const all = this.rows * this.height;
    return all <= MOST_PIXELS ? 1 : (all - this.view) / (MOST_PIXELS - this.view);
  }

  resize() {
    const side = Number.parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--cell"));
    const top = this.columns ? Math.floor(this.offset / this.height) * this.columns : null;
    this.view = this.scroller.clientHeight;
    this.columns = Math.max(Math.floor(this.scroller.clientWidth / side), 1);
    this.width = this.scroller.clientWidth / this.columns;
    this.height = side + 24;
    this.layer.style.height = `${this.view}px`;
    for (const node of [...this.nodes.values(), ...this.free]) node.remove();
    this.nodes.clear();
    this.free = [];
    this.sized = false;
    // What was at the top stays there.
    if (top !== null) this.offset = Math.floor(top / this.columns) * this.height;
    this.first = top === null;
    this.draw();
  }

  /** Lay out once the number of rows is known, at first with the active cell in sight. */
  size() {
    this.sized = true;
    this.spacer.style.height = `${Math.min(this.rows * this.height, MOST_PIXELS)}px`;
    this.scroller.setAttribute("aria-rowcount", this.rows);
    this.scroller.setAttribute("aria-colcount", this.columns);
    this.scroller.classList.toggle("scaled", this.scale !== 1);
    this.active = Math.min(this.active, Math.max(this.pages.total - 1, 0));
    if (this.first) this.show(this.active);
    else this.move(this.offset);
  }

  /** Scroll by as little as brings a place into view. */
  show(place) {
    const top = Math.floor(place / this.columns) * this.height;
    this.move(Math.max(Math.min(this.offset, top), top + this.height - this.view));
  }

  move(offset) {
    const most = Math.max(this.rows * this.height - this.view, 0);
    this.offset = Math.min(Math.max(offset, 0), most);
    this.own = this.offset / this.scale;
    this.scroller.scrollTop = this.own;
    this.draw();
  }

  scrolled() {
    // Our own scrolling, rounded by the browser, keeps the offset as it is.
    if (this.own !== undefined && Math.abs(this.scroller.scrollTop - this.own) < 1.5) return;
    this.own = undefined;
    this.offset = this.scroller.scrollTop * this.scale;
    this.draw();
  }

  wheel(event) {
    // Where a pixel of the spacer is many rows, the wheel still moves by its own distance.
    if (this.scale === 1 || event.ctrlKey) return;
    event.preventDefault();
    this.move(this.offset + event.deltaY * { 0: 1, 1: 40, 2: this.view }[event.deltaMode]);
  }

  touched(event) {
    cancelAnimationFrame(this.gliding);
    this.finger = this.scale === 1 || event.touches.length !== 1 ? null : { y: event.touches[0].clientY, time: event.timeStamp, speed: 0 };
  }

  dragged(event) {
    if (!this.finger) return;
    event.preventDefault();
    const y = event.touches[0].clientY;
    const ms = Math.max(event.timeStamp - this.finger.time, 1);
    const by = this.finger.y - y;
    this.finger = { y, time: event.timeStamp, speed: 0.7 * (by / ms) + 0.3 * this.finger.speed };
    this.move(this.offset + by);
  }

  released(event) {
    // A finger that stood still throws nothing.
    if (!this.finger || event.timeStamp - this.finger.time > 80) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    let { speed } = this.finger;
    let before = performance.now();
    const glide = (now) => {
      this.move(this.offset + speed * (now - before));
      speed *= 0.997 ** (now - before);
      before = now;
      if (Math.abs(speed) > 0.02) this.gliding = requestAnimationFrame(glide);
    };
    this.gliding = requestAnimationFrame(glide);
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  paint() {
    if (this.pages.total === null || !this.columns) return;
    if (!this.sized) this.size();
    if (this.counts) showCount(this.pages.total);
    if (!this.pages.total) {
      this.layer.replaceChildren(element("p", { class: "nothing" }, "No sample meets these filters."));
      return;
    }
    const first = Math.max(Math.floor(this.offset / this.height) - 1, 0);
    const last = Math.min(Math.ceil((this.offset + this.view) / this.height) + 1, this.rows);
    const fast = Math.abs(first - this.last) > FLING;
    this.last = first;
    if (!fast) this.pages.want(first * this.columns, last * this.columns - 1);
    for (const [number, node] of this.nodes) {
      if (number < first || number >= last) {
        this.nodes.delete(number);
        this.free.push(node);
      }
    }
    // Tab always finds a cell that can be seen.
    const row = Math.floor(this.active / this.columns);
    this.reachable = row >= first && row < last ? this.active : Math.ceil(this.offset / this.height) * this.columns;
    for (let number = first; number < last; number++) {
      let node = this.nodes.get(number);
      if (!node) {
        node = this.free.pop() ?? this.rowNode();
        this.nodes.set(number, node);
        node.setAttribute("aria-rowindex", number + 1);
      }
      node.style.transform = `translateY(${number * this.height - this.offset}px)`;
      for (const [column, cell] of [...node.children].entries()) this.fill(cell, number * this.columns + column, fast);
    }
    for (const node of this.free) node.style.transform = "translateY(-9999px)";
    if (this.takesFocus) {
      this.takesFocus = false;
      this.focus();
    }
    clearTimeout(this.settling);
    if (fast) this.settling = setTimeout(() => this.draw(), 80);
  }

  rowNode() {
    const node = element("div", { class: "row", role: "row" });
    for (let column = 0; column < this.columns; column++) {
      const image = element("img", { alt: "", draggable: "false", decoding: "async" });
      const cell = element(
        "div",
        { class: "cell", role: "gridcell", tabindex: "-1", "aria-colindex": column + 1 },
        element("div", { class: "frame" }, image),
        element("p", { "aria-hidden": "true" }),
      );
      cell.style.width = `${this.width}px`;
      image.addEventListener("error", () => broken(cell.firstChild, image));
      image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 48));
      node.append(cell);
    }
    this.layer.append(node);
    return node;
  }

  fill(cell, place, fast) {
    const row = place < this.pages.total ? this.pages.at(place) : null;
    cell.tabIndex = place === this.reachable ? 0 : -1;
    cell.dataset.place = place;
    cell.hidden = place >= this.pages.total;
    if (this.selecting && row) cell.setAttribute("aria-selected", this.selecting.has(row.number));
    const shown = row ? `${row.number} ${JSON.stringify(row.decisions)}` : "";
    if (cell.dataset.shown === shown && shown) return;
    const image = cell.querySelector("img");
    cell.querySelector(".badge")?.remove();
    cell.querySelector(".broken")?.remove();
    if (!row || fast) {
      cell.dataset.shown = "";
      image.removeAttribute("src"); // Hangs up on a picture that nobody waits for.
      image.alt = "";
      cell.lastChild.textContent = "";
      return;
    }
    cell.dataset.shown = shown;
    image.src = thumbnail(row, thumbSide(this.height - 24));
    const decided = decisionText(row);
    image.alt = described(row) + (decided ? `, ${decided}` : "");
    cell.lastChild.textContent = className(row.label);
    cell.title = row.key;
    if (decided) cell.firstChild.append(element("span", { class: "badge", "aria-hidden": "true" }, decided));
  }

  focused(event) {
    const place = event.target.closest(".cell")?.dataset.place;
    if (place !== undefined) this.active = Number(place);
  }

  clicked(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    this.activate(Number(cell.dataset.place));
    this.choose();
  }

  choose() {
    const row = this.pages.at(this.active);
    if (row) this.open(row, this.active);
    this.draw();
  }

  activate(place) {
    this.active = Math.min(Math.max(place, 0), this.pages.total - 1);
    this.show(this.active);
    this.paint();
    this.focus();
    this.moved(this.active);
  }

  focus() {
    this.scroller.querySelector(`.cell[data-place="${this.active}"]`)?.focus({ preventScroll: true });
  }

  key(event) {
    if (!this.pages.total) return;
    const page = Math.max(Math.floor(this.view / this.height), 1) * this.columns;
    const moves = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: this.columns,
      ArrowUp: -this.columns,
      PageDown: page,
      PageUp: -page,
      Home: event.ctrlKey ? -Infinity : -(this.active % this.columns),
      End: event.ctrlKey ? Infinity : this.columns - 1 - (this.active % this.columns),
    };
    if (event.key in moves) {
      event.preventDefault();
      this.activate(this.active + moves[event.key]);
    } else if (event.key === " " || (event.key === "Enter" && !this.selecting)) {
      event.preventDefault();
      this.choose();
    }
  }
}

const SIDES = [64, 96, 128, 160, 224, 320, 480];
const LARGE = 960;
const thumbSide = (pixels) => {
  const wanted = pixels * Math.min(window.devicePixelRatio || 1, 2);
  return SIDES.find((side) => side >= wanted * 0.85) ?? 480;
};
const thumbnail = (row, side) => `thumb/${row.number}/${side}?v=${row.hash ?? row.xxh64}`;

function broken(frame, image) {
  if (!image.hasAttribute("src")) return;
  image.removeAttribute("src");
  frame.querySelector(".broken")?.remove();
  frame.append(element("span", { class: "broken" }, "can't be decoded"));
}

const inConflict = (decisions) =>
  new Set(decisions.filter((one) => one.action !== "skip").map((one) => `${one.action} ${one.new}`)).size > 1;

function decisionText(row) {
  const all = row.decisions ?? [];
  if (inConflict(all)) return "conflict";
  const one = all.find((each) => each.action !== "skip");
  if (!one) return "";
  if (one.action === "relabel") return `→ ${nameOfId(one.new)}`;
  return { accept: "✓", exclude: "excluded", flag: "flagged" }[one.action] ?? "";
}

function showCount(total) {
  const all = dataset.samples;
  const text = total === all ? `${grouped(all)} samples` : `${grouped(total)} of ${grouped(all)} samples`;
  if (byId("count").textContent !== text) byId("count").textContent = text;
}

// --- tables, strips, charts -----------------------------------------------------------------------------------------

function meter(share, kind = "") {
  const bar = element("span", { class: `meter ${kind}`, "aria-hidden": "true" });
  bar.style.width = percent(share);
  return bar;
}

function table(names, rows) {
  const isNumber = (value) => typeof value === "number";
  const cell = (value) => element("td", { class: isNumber(value) ? "number" : null }, isNumber(value) ? grouped(value) : value);
  return element(
    "div",
    { class: "table-scroll" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, names.map((name, i) => element("th", { scope: "col", class: isNumber(rows[0]?.[i]) ? "number" : null }, name)))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell)))),
    ),
  );
}

/** Pictures in a row, each opens its sample. */
function strip(rows, caption = () => null) {
  return element(
    "div",
    { class: "strip" },
    rows.map((row) => {
      const text = caption(row);
      const image = element("img", { src: thumbnail(row, 160), alt: described(row), loading: "lazy", title: described(row) });
      const figure = element("figure", {}, image, text && element("figcaption", {}, text));
      image.addEventListener("error", () => broken(figure, image));
      return button(figure, () => go({ sample: String(row.number) }));
    }),
  );
}

/** Lines over epochs: `[{name, kind, values}]`; the numbers stand in a table for those who can't see them. */
function chart(title, lines, format) {
  const all = lines.flatMap((line) => line.values).filter((value) => Number.isFinite(value));
  if (!all.length) return null;
  const [width, height, left, bottom] = [430, 210, 46, 26];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const most = Math.max(...lines.map((line) => line.values.length));
  const x = (epoch) => left + (most < 2 ? 0.5 : epoch / (most - 1)) * (width - left - 12);
  const y = (value) => 10 + (1 - (value - low) / (high - low || 1)) * (height - bottom - 20);
  const ticks = [low, (low + high) / 2, high];
  return element(
    "figure",
    { class: "chart" },
    element("figcaption", {}, title),
    drawn(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${lines.map((one) => `${one.name} ends at ${format(one.values.at(-1))}`).join(", ")}` },
      ticks.map((value) => [
        drawn("line", { class: "grid-line", x1: left, x2: width - 12, y1: y(value), y2: y(value) }),
        drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
      ]),
      [...new Set([1, most])].map((epoch) => drawn("text", { x: x(epoch - 1), y: height - 6, "text-anchor": epoch === 1 && most > 1 ? "start" : "end" }, `epoch ${epoch}`)),
      lines.map((line) =>
        line.values.length > 1
          ? drawn("polyline", { class: `line ${line.kind}`, points: line.values.map((value, epoch) => `${x(epoch)},${y(value)}`).join(" ") })
          : drawn("circle", { class: `dot ${line.kind}`, cx: x(0), cy: y(line.values[0]), r: 4 }),
      ),
    ),
    element("p", { class: "legend" }, lines.map((line) => element("span", {}, element("i", { class: `swatch ${line.kind}` }), line.name))),
  );
}

/** Bars of equal width, with the least and the largest value below. */
function histogram({ name, counts, edges, median }) {
  const most = Math.max(...counts, 1);
  const width = 240 / counts.length;
  return element(
    "figure",
    { class: "chart small" },
    element("figcaption", {}, name),
    drawn(
      "svg",
      { viewBox: "0 0 240 92", role: "img", "aria-label": `${name}: median ${grouped(median)}` },
      counts.map((count, i) => drawn("rect", { x: i * width, y: 70 - (count / most) * 66, width: Math.max(width - 1, 1), height: (count / most) * 66 })),
      drawn("text", { x: 0, y: 87 }, shortNumber(edges[0])),
      drawn("text", { x: 240, y: 87, "text-anchor": "end" }, shortNumber(edges[1])),
      drawn("text", { x: 120, y: 87, "text-anchor": "middle" }, `median ${shortNumber(median)}`),
    ),
  );
}

// --- browse ---------------------------------------------------------------------------------------------------------

function browse() {
  current = new Grid(byId("main"), {
    parameters: query(),
    place: Number(state.at ?? 0),
    open: (row, place) => go({ sample: String(row.number), at: String(place || "") }),
    moved: (place) => go({ at: String(place || "") }, { replace: true, quiet: true }),
  });
}

// --- overview -------------------------------------------------------------------------------------------------------

async function overview() {
  const page = element("div", { class: "page", tabindex: "0" }, element("p", { class: "soft" }, "Counting …"));
  byId("main").replaceChildren(page);
  const found = await attempt(() => ask("api/overview"));
  if (!found || state.page !== "overview") return;
  byId("count").textContent = `${grouped(dataset.samples)} samples`;
  page.replaceChildren(...overviewParts(found).filter(Boolean));
}

function overviewParts(found) {
  return [
    element(
      "ul",
      { class: "cards" },
      card(grouped(dataset.samples), "samples"),
      card(grouped(dataset.classes.length), "classes"),
      ...found.splits.map((one) => card(grouped(one.samples), one.labelled < one.samples ? `${one.name}, ${grouped(one.labelled)} labelled` : one.name, { split: one.name })),
      ...found.formats.map((one) => card(grouped(one.samples), one.name, { format: one.name })),
    ),
    ...found.runs.length ? [element("h2", {}, found.runs.length > 1 ? "Runs" : "Run"), curves(found.runs), ...found.runs.map(runPart)] : [],
    found.findings.length > 0 && element("h2", {}, "Findings of the audit"),
    found.findings.length > 0 && findingsTable(found),
    element("h2", {}, "Sizes"),
    element("div", { class: "charts" }, found.sizes.map(histogram)),
    table(["", "smallest", "median", "largest"], found.sizes.map((one) => [one.name, one.least, one.median, one.most])),
    found.views.length > 0 && element("h2", {}, "Saved views"),
    found.views.length > 0 &&
      table(
        ["view", "split", "samples", "steps"],
        found.views.map((one) => [element("a", { href: link({ mark: `view:${one.name}` }) }, one.name), one.split, one.samples, element("span", { class: "clip", title: one.expression }, one.expression)]),
      ),
    element("h2", {}, "Classes"),
    classTable(found.classes),
  ];
}

function card(number, text, filter = null) {
  const inside = [element("strong", {}, number), element("span", {}, text)];
  return element("li", {}, filter ? element("a", { href: link(filter) }, inside) : element("div", {}, inside));
}

function findingsTable(found) {
  return element(
    "div",
    {},
    table(
      ["kind", "samples", "the surest", ""],
      found.findings.map((one) => [
        element("a", { href: link({ mark: `finding:${one.kind}` }) }, one.kind),
        one.samples,
        strip(one.examples.slice(0, 6)),
        element("a", { href: link({ page: "review", mark: `finding:${one.kind}` }) }, "Review"),
      ]),
    ),
    found.general.length > 0 && element("ul", { class: "plain" }, found.general.map((one) => element("li", {}, element("b", {}, `${one.kind}: `), one.message))),
  );
}

function classTable(classes) {
  const most = Math.max(...classes.map((one) => one.samples), 1);
  const body = element("tbody");
  const row = (one) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("a", { href: link({ class: one.label < 0 ? "none" : one.label }) }, one.name)),
      element("td", { class: "number" }, grouped(one.samples)),
      element("td", { class: "bar-cell" }, meter(one.samples / most)),
      element("td", {}, strip(one.examples)),
      element("td", {}, one.label >= 0 && element("a", { href: link({ page: "review", how: "grid", class: one.label }) }, "Check")),
    );
  const show = (text) => body.replaceChildren(...classes.filter((one) => one.name.toLowerCase().includes(text.toLowerCase())).slice(0, 200).map(row));
  show("");
  return element(
    "div",
    {},
    classes.length > 12 && field("Class name holds", element("input", { type: "search", input: (event) => show(event.target.value) }), "search"),
    element("div", { class: "table-scroll" }, element("table", { class: "classes" }, body)),
    classes.length > 200 && element("p", { class: "soft" }, `The 200 largest of ${grouped(classes.length)} classes that match are shown.`),
  );
}

function curves(runs) {
  const lines = (train, val) =>
    runs.flatMap((run, number) => [
      { name: `${run.name}, training`, kind: `run-${number % 4} dashed`, values: run.curves.map((row) => row[train]) },
      { name: `${run.name}, validation`, kind: `run-${number % 4}`, values: run.curves.map((row) => row[val]) },
    ]).filter((line) => line.values.length);
  return element("div", { class: "charts" }, chart("Loss", lines("train_loss", "val_loss"), shortNumber), chart("Share that is right", lines("train_top1", "val_top1"), percent));
}

function runPart(run) {
  const part = element("section", { class: "run" }, element("h3", {}, `${run.name}: ${run.model}, ${run.size} pixels, ${grouped(run.samples?.train ?? 0)} samples to train on`));
  if (!run.trained) {
    part.append(element("p", { class: "soft" }, "No epoch is over yet."));
    return part;
  }
  const status = element("p", { class: "soft", role: "status" }, "Predicting …");
  part.append(status);
  attempt(async () => {
    try {
      const found = await ask(`api/run?run=${encodeURIComponent(run.name)}`, { waiting: (text) => (status.textContent = text) });
      status.textContent = `${percent(found.right / found.total)} right: ${grouped(found.right)} of ${grouped(found.total)} samples of ${found.split} that it was validated with.`;
      part.append(
        element("div", { class: "side-by-side" },
          element("div", {}, element("h4", {}, found.matrix ? "What each class is taken for" : "Mistaken most often"), found.matrix ? confusion(run, found.matrix) : pairs(run, found.pairs)),
          element("div", {}, element("h4", {}, "Worst mistakes"), strip(found.worst, (row) => `${row.label_name} → ${row.predicted} ${percent(row.probability)}`)),
        ),
      );
    } catch (error) {
      status.textContent = `No predictions: ${error.message}`;
    }
  });
  return part;
}

const cellOf = (run, label, output) => link({ mark: `run:${run.name}:${label}-${output}` });

function confusion(run, matrix) {
  const names = run.classes.map((one) => one[1]);
  const sums = matrix.map((row) => row.reduce((sum, value) => sum + value, 0));
  const cell = (count, label, output) => {
    const made = element("td", {});
    if (!count) return made;
    made.append(element("a", { href: cellOf(run, label, output), title: `${names[label]} taken for ${names[output]}: ${count}`, "aria-label": `${count} ${names[label]} taken for ${names[output]}` }, grouped(count)));
    made.style.setProperty("--share", `${Math.round(8 + 37 * (count / sums[label]))}%`);
    made.className = label === output ? "right" : "wrong";
    return made;
  };
  return element(
    "div",
    { class: "table-scroll" },
    element(
      "table",
      { class: "matrix" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col", class: "soft" }, "label ↓ taken for →"), names.map((name) => element("th", { scope: "col" }, element("span", {}, name))))),
      element("tbody", {}, matrix.map((row, label) => element("tr", {}, element("th", { scope: "row" }, names[label]), row.map((count, output) => cell(count, label, output))))),
    ),
  );
}

function pairs(run, found) {
  return table(["label", "taken for", "times"], found.map(([label, output, times]) => [run.classes[label][1], element("a", { href: cellOf(run, label, output) }, run.classes[output][1]), times]));
}

// --- one sample -----------------------------------------------------------------------------------------------------

/** A picture that can be enlarged and moved: wheel, two fingers, drag, keys. */
class Zoom {
  constructor(number, row) {
    this.image = element("img", { src: `picture/${number}`, alt: described(row), draggable: "false" });
    this.node = element("div", { class: "zoom", tabindex: "0", role: "group", "aria-label": "Picture; plus and minus zoom, 0 fits it, arrows move it when it is larger than its frame" }, this.image);
    this.fingers = new Map();
    this.image.addEventListener("load", () => this.fit());
    this.image.addEventListener("error", () => {
      // A format that browsers don't show, or a picture that can't be decoded.
      if (this.image.src.includes("/thumb/")) broken(this.node, this.image);
      else this.image.src = thumbnail(row, LARGE);
    });
    this.node.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.node.addEventListener("dblclick", (event) => this.toggle(event));
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) this.node.addEventListener(name, (event) => this[name](event));
    this.resizing = new ResizeObserver(() => this.fit());
    this.resizing.observe(this.node);
  }

  stop() {
    this.resizing.disconnect();
  }

  get fitting() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    return Math.min(this.node.clientWidth / width, this.node.clientHeight / height) || 1;
  }

  get larger() {
    return this.scale > this.fitting * 1.01;
  }

  fit() {
    if (!this.image.naturalWidth) return;
    this.scale = this.fitting;
    this.x = this.y = 0;
    this.draw();
  }

  /** Zoom by a factor; the point of the frame stays where it is. */
  by(factor, x = this.node.clientWidth / 2, y = this.node.clientHeight / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.fitting), Math.max(this.fitting, 1) * 32);
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }

  draw() {
    const inside = (at, frame, picture) => (picture <= frame ? (frame - picture) / 2 : Math.min(0, Math.max(frame - picture, at)));
    this.x = inside(this.x, this.node.clientWidth, this.image.naturalWidth * this.scale);
    this.y = inside(this.y, this.node.clientHeight, this.image.naturalHeight * this.scale);
    this.image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.image.classList.toggle("tiny", this.scale > 3);
    this.node.classList.toggle("larger", this.larger);
    this.told?.(this.scale);
  }

  at(event) {
    const box = this.node.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...this.at(event));
  }

  toggle(event) {
    if (this.larger) this.fit();
    else this.by(Math.max(1 / this.scale, 3), ...this.at(event));
  }

  pointerdown(event) {
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.node.setPointerCapture(event.pointerId);
  }

  pointermove(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const spread = () => {
      const [a, b] = [...this.fingers.values()];
      return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
    };
    const wide = spread();
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (wide) this.by(spread() / wide, ...this.at(event));
    else {
      this.x += event.clientX - before[0];
      this.y += event.clientY - before[1];
      this.draw();
    }
  }

  pointerup(event) {
    this.fingers.delete(event.pointerId);
  }

  pointercancel(event) {
    this.fingers.delete(event.pointerId);
  }

  /** Return whether a key was one of the picture's. */
  key(event) {
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key === "+" || event.key === "=") this.by(1.4);
    else if (event.key === "-") this.by(1 / 1.4);
    else if (event.key === "0") this.fit();
    else if (event.key in moves && this.larger && document.activeElement === this.node) {
      this.x += moves[event.key][0];
      this.y += moves[event.key][1];
      this.draw();
    } else return false;
    return true;
  }
}

let shownSample = null; // {found, zoom} of the dialog.

async function showSample(number) {
  const dialog = byId("sample");
  const found = await attempt(() => ask(`api/sample/${number}?${query()}`));
  if (state.sample !== String(number)) return;
  if (!found) {
    go({ sample: "" }, { replace: true });
    return;
  }
  shownSample?.zoom.stop();
  const zoom = new Zoom(number, found);
  shownSample = { found, zoom };
  const step = (which, text, sign, key) =>
    button(sign, () => toSample(which), { "aria-label": text, title: `${text} (${key})`, disabled: found[which] === null, "data-step": which });
  const scale = element("span", { class: "soft scale", "aria-live": "off" });
  zoom.told = (value) => (scale.textContent = percent(value));
  const focused = dialog.contains(document.activeElement) ? document.activeElement.dataset.step : null;
  dialog.replaceChildren(
    element(
      "div",
      { class: "dialog-bar" },
      element("h2", { id: "sample-title" }, found.key),
      scale,
      found.place !== null && element("span", { class: "soft place" }, `${grouped(found.place + 1)} of ${grouped(found.total)}`),
      step("previous", "Previous sample", "‹", "left arrow"),
      step("next", "Next sample", "›", "right arrow"),
      element("a", { class: "button", href: `picture/${number}`, download: `${found.key.replaceAll("/", "_")}.${found.format}` }, "Download"),
      button("Close", () => dialog.close(), { class: "quiet" }),
    ),
    element(
      "div",
      { class: "sample" },
      element("div", {}, zoom.node, trainingPart(found), ...dataset.runs.map((name) => predictionPart(found, name))),
      sampleFacts(found),
    ),
  );
  if (!dialog.open) dialog.showModal();
  const again = focused && dialog.querySelector(`[data-step="${focused}"]:not(:disabled)`);
  if (again) again.focus();
  else zoom.node.focus();
  // The pictures beside it are there before they are asked for.
  for (const beside of [found.next, found.previous]) if (beside !== null) new Image().src = `picture/${beside}`;
}

function toSample(which) {
  const { found } = shownSample;
  if (found[which] === null) return;
  const place = found.place + (which === "next" ? 1 : -1);
  go({ sample: String(found[which]), at: String(place || "") }, { replace: true });
}

function sampleKey(event) {
  if (!shownSample || modified(event) || typingIn(event) || byId("form").open || byId("help").open) return;
  const { zoom } = shownSample;
  if (zoom.key(event)) event.preventDefault();
  else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    event.preventDefault();
    toSample(event.key === "ArrowRight" ? "next" : "previous");
  }
}

function sampleClosed() {
  shownSample?.zoom.stop();
  shownSample = null;
  go({ sample: "" }, { replace: true });
  if (current instanceof Grid && state.at !== undefined) current.activate(Number(state.at));
}

function sampleFacts(found) {
  const label = found.label < 0 ? "none" : element("a", { href: link({ class: found.label }) }, className(found.label));
  const facts = [
    ["class", element("span", {}, label, found.label >= 0 && classId(found.label) !== className(found.label) && ` (${classId(found.label)})`)],
    ["split", `${found.split}, position ${grouped(found.position)}`],
    ["source", found.source],
    ["pixels", `${grouped(found.width)} × ${grouped(found.height)}, ${found.format} ${found.mode}`],
    ["orientation", found.orientation === 1 ? null : `EXIF ${found.orientation}`],
    ["bytes", `${grouped(found.size)} from byte ${grouped(found.offset)} of ${found.shard}`],
    ["xxh64", found.xxh64],
  ];
  const own = new Set(["class_id", "class_name", "label", "width", "height", "source", "key"]);
  const more = Object.entries(found.fields).filter(([name]) => !own.has(name));
  const list = (all) =>
    element("dl", { class: "facts" }, all.filter(([, value]) => value !== null).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  return element(
    "div",
    {},
    list(facts),
    ...found.faults.map((fault) => element("p", { class: "fault" }, fault)),
    more.length > 0 && element("h3", {}, "Metadata"),
    more.length > 0 && list(more.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])),
    element("h3", {}, "Files of the sample in the tar"),
    table(["name", "bytes", "from byte"], found.members.map((one) => [one.name, one.size, one.offset])),
    found.decisions.length > 0 && element("h3", {}, inConflict(found.decisions) ? "Decisions, in conflict" : "Decisions"),
    found.decisions.length > 0 && decisionList(found.decisions),
    ...found.findings.map((one) => element("div", {}, element("h3", {}, `Finding: ${one.kind}`), element("p", {}, one.message), one.other && strip([one.other]))),
    found.alike.length > 0 && element("h3", {}, "Found alike"),
    found.alike.length > 0 && strip(found.alike, (row) => row.kind),
    ...(dataset.has_features ? nearest(found.number) : []),
    found.same_class.length > 0 && element("h3", {}, "More of this class"),
    strip(found.same_class),
  );
}

function decisionList(decisions) {
  return element(
    "ul",
    { class: "plain" },
    decisions.map((one) =>
      element(
        "li",
        {},
        element("b", {}, one.author),
        `: ${one.action}${one.new ? ` → ${nameOfId(one.new)}` : ""}`,
        one.reason && ` (${one.reason})`,
        element("span", { class: "soft" }, ` ${new Date(one.time * 1000).toLocaleString()}`),
      ),
    ),
  );
}

function nearest(number) {
  const place = element("div", {}, element("p", { class: "soft" }, "Comparing …"));
  attempt(async () => {
    const found = await ask(`api/nearest/${number}`, { waiting: (text) => (place.firstChild.textContent = text) });
    place.replaceChildren(found.nearest.length ? strip(found.nearest, (row) => row.alike.toFixed(3)) : element("p", { class: "soft" }, "No features of this sample."));
  });
  return [element("h3", {}, "Nearest in features"), place];
}

/** A part that is computed only once it was opened; stays open for the samples that follow. */
function opened(name, title, fill) {
  const inside = element("div");
  const details = element("details", { class: "part", open: memory.get(name) === "open" }, element("summary", {}, title), inside);
  let isFilled = false;
  const show = () => {
    if (!details.open || isFilled) return;
    isFilled = true;
    fill(inside);
  };
  details.addEventListener("toggle", () => {
    memory.set(name, details.open ? "open" : "");
    show();
  });
  show();
  return details;
}

const EPOCHS = 6;

function trainingPart(found) {
  return opened("training", "What training makes of it", (inside) => {
    let run = dataset.runs[0] ?? "";
    let first = 1;
    const pictures = element("div", { class: "strip made" });
    const words = element("p", { class: "soft" });
    const show = () => {
      const more = new URLSearchParams({ run, split: found.split });
      attempt(async () => {
        const recipe = await ask(`api/recipe?${more}`);
        words.textContent = `${recipe.recipe}, seed ${recipe.seed}: ${recipe.steps.join(", ")}. The same pixels as the loader's, before they are normalised.`;
      });
      pictures.replaceChildren(
        ...Array.from({ length: EPOCHS }, (_, i) => first + i).map((epoch) => {
          const image = element("img", { src: `augmented/${found.number}/${epoch}?${more}`, alt: `${found.key} in epoch ${epoch}` });
          const figure = element("figure", {}, image, element("figcaption", {}, `epoch ${epoch}`));
          image.addEventListener("error", () => broken(figure, image));
          image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 112));
          return figure;
        }),
      );
    };
    const from = element("input", { type: "number", min: 1, max: 99990, value: 1, change: () => {
      first = Math.min(Math.max(Math.round(Number(from.value)) || 1, 1), 99990);
      show();
    } });
    const select = element("select", { change: () => {
      run = select.value;
      show();
    } }, dataset.runs.map((name) => element("option", { value: name }, name)), element("option", { value: "" }, "usual recipe"));
    inside.append(element("div", { class: "line" }, field("From epoch", from), field("Recipe of", select)), pictures, words);
    show();
  });
}

function predictionPart(found, run) {
  return opened(`predictions`, `What ${run} predicts`, (inside) => {
    inside.append(element("p", { class: "soft" }, "Predicting …"));
    attempt(async () => {
      let answer;
      try {
        answer = await ask(`api/predicted/${found.number}?run=${encodeURIComponent(run)}`);
      } catch (error) {
        inside.replaceChildren(element("p", { class: "soft" }, error.message));
        return;
      }
      const map = element("figure", { class: "heat" });
      const look = (one) => {
        const image = element("img", { src: `heat/${found.number}?${new URLSearchParams({ run, output: one.output })}`, alt: `Where ${run} looks for ${one.name}` });
        image.addEventListener("error", () => map.replaceChildren(element("p", { class: "soft" }, "No heat map: it needs captum, pip install 'imgdata[train]'")));
        image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 112));
        map.replaceChildren(image, element("figcaption", {}, `where it looks for ${one.name}`));
        for (const other of list.children) other.firstChild.setAttribute("aria-pressed", String(other.dataset.output === String(one.output)));
      };
      const list = element(
        "ol",
        { class: "predictions" },
        answer.predictions.map((one) =>
          element(
            "li",
            { "data-output": one.output },
            button([element("span", {}, one.name), element("span", { class: "number" }, percent(one.probability)), meter(one.probability, one.id === classId(found.label) ? "right" : "")], () => look(one), { title: "show where it looks" }),
          ),
        ),
      );
      inside.replaceChildren(element("div", { class: "side-by-side" }, list, map));
      look(answer.predictions[0]);
    });
  });
}

// --- dialogs with a form --------------------------------------------------------------------------------------------

/** Show a form; `done` gets its fields, and closes the dialog unless it throws, whose message is shown inside. */
function formDialog(title, parts, submit, done) {
  const dialog = byId("form");
  const fault = element("p", { class: "fault", role: "alert" });
  const form = element(
    "form",
    {
      submit: async (event) => {
        event.preventDefault();
        fault.textContent = "";
        try {
          await done(new FormData(form), form);
        } catch (error) {
          fault.textContent = error.message;
        }
      },
    },
    parts,
    fault,
    element("p", { class: "buttons" }, element("button", { class: "main" }, submit), button("Cancel", () => dialog.close())),
  );
  dialog.replaceChildren(
    element("div", { class: "dialog-bar" }, element("h2", { id: "form-title" }, title), button("Close", () => dialog.close(), { class: "quiet" })),
    element("div", { class: "dialog-text" }, form),
  );
  if (!dialog.open) dialog.showModal();
  form.querySelector("input")?.focus();
}

const author = () => memory.get("author") || dataset.author;

function askAuthor(done) {
  formDialog(
    "Who decides?",
    [field("Name that stands beside your decisions", element("input", { name: "author", value: author(), maxlength: 80, required: true, autocomplete: "name" }))],
    "Take this name",
    (values) => {
      memory.set("author", values.get("author").trim());
      byId("form").close();
      done();
    },
  );
}

function askSave() {
  formDialog(
    "Save the decisions as a view",
    [
      element("p", {}, "New labels and exclusions become a view that loaders and trainers take. What is in conflict stays as it is."),
      field("Name of the view, of a-z, 0-9, _ and -", element("input", { name: "name", value: "reviewed", pattern: "[a-z0-9_\\-]+", required: true, maxlength: 60, autocomplete: "off" })),
      element("label", { class: "check" }, element("input", { type: "checkbox", name: "overwrite" }), " Replace a view of this name"),
    ],
    "Save",
    async (values) => {
      const name = values.get("name");
      const saved = await post("api/save-view", { name, overwrite: values.get("overwrite") !== null });
      dataset = await ask("api/dataset");
      byId("form").querySelector(".dialog-text").replaceChildren(
        element("ul", { class: "plain" }, saved.lines.map((one) => element("li", {}, one))),
        element("p", {}, "To train with it:"),
        element("pre", {}, `imgdata train ${saved.folder} --view ${name}`),
        element("p", { class: "buttons" }, element("a", { class: "button", href: link({ mark: `view:${name}` }), click: () => byId("form").close() }, "Look at it"), button("Close", () => byId("form").close())),
      );
    },
  );
}

/** Return parts of a CSV text that are small enough for a request, each with the heading; cut between rows. */
function csvParts(text) {
  let inQuotes = false;
  let start = 0;
  const rows = [];
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') inQuotes = !inQuotes;
    else if (text[i] === "\n" && !inQuotes) {
      rows.push(text.slice(start, i + 1));
      start = i + 1;
    }
  }
  if (start < text.length) rows.push(text.slice(start));
  const [head = "", ...rest] = rows;
  const parts = [];
  let part = head;
  for (const row of rest) {
    if (part.length + row.length > UPLOAD && part !== head) {
      parts.push(part);
      part = head;
    }
    part += row;
  }
  return [...parts, part];
}

function askImport(done) {
  formDialog(
    "Take in decisions",
    [
      element("p", {}, "A CSV file that a viewer of this dataset exported. Decisions that are here already are left alone."),
      field("File", element("input", { type: "file", name: "file", accept: ".csv,text/csv", required: true })),
    ],
    "Import",
    async (values) => {
      let added = 0;
      for (const part of csvParts(await values.get("file").text())) added += (await post("api/import", { csv: part })).added;
      byId("form").close();
      say(`${grouped(added)} decisions taken in`);
      done();
    },
  );
}

// --- review ---------------------------------------------------------------------------------------------------------

const KINDS = {
  label: "Labels that may be wrong",
  leak: "Pictures in two splits",
  conflict: "Pictures under two labels",
  "exact-duplicate": "Exact duplicates",
  "near-duplicate": "Near duplicates",
  quality: "Poor pictures",
  balance: "Imbalance",
  bias: "Hidden bias",
};

function queueName() {
  const [kind, value] = (state.mark ?? "").split(/:(.*)/);
  if (kind === "finding") return KINDS[value] ?? value ?? "Findings";
  if (kind === "decision") return `Decisions: ${value}`;
  const words = filters().map(([name, text]) => (name === "class" ? className(text === "none" ? -1 : Number(text)) : text));
  return words.join(", ") || "All samples";
}

function reviewTools(reload) {
  return element(
    "p",
    { class: "tools" },
    button(["deciding as ", element("b", {}, author())], () => askAuthor(reload), { class: "quiet" }),
    button("Save as a view …", askSave),
    element("a", { class: "button", href: "api/decisions.csv", download: "decisions.csv" }, "Export CSV"),
    button("Import …", () => askImport(reload)),
  );
}

async function reviewStart() {
  const page = element("div", { class: "page", tabindex: "0" }, element("p", { class: "soft" }, "Counting …"));
  byId("main").replaceChildren(page);
  const found = await attempt(() => ask(`api/queues?${new URLSearchParams({ author: author() })}`));
  if (!found || state.page !== "review") return;
  byId("count").textContent = `${grouped(found.decided)} decided`;
  const queueRow = (name, mark, total, decided) => [
    element("a", { href: link({ page: "review", mark }) }, name),
    total,
    decided === null ? "" : element("span", { class: "progress", role: "img", "aria-label": `${decided} decided` }, meter(total ? decided / total : 0)),
    decided === null ? "" : `${grouped(decided)} decided`,
  ];
  const rows = found.findings.map((one) => queueRow(KINDS[one.kind] ?? one.kind, `finding:${one.kind}`, one.total, one.decided));
  const decisions = [
    ["Conflicts: two people decided differently", "decision:conflict", found.conflicts],
    ["Flagged for somebody else", "decision:flag", found.decisions.flag ?? 0],
    ["Skipped", "decision:skip", found.decisions.skip ?? 0],
  ].filter(([, , count]) => count > 0);
  const parts = [
    reviewTools(reviewStart),
    element("h2", {}, "What the audit found"),
    rows.length
      ? table(["queue", "samples", "", ""], rows)
      : element("p", {}, "Nothing yet. ", element("code", {}, `imgdata audit ${dataset.folder} -o report/`), " finds wrong labels, duplicates and leaks; start the viewer with ", element("code", {}, "--findings report/"), "."),
    decisions.length > 0 && element("h2", {}, "Decisions to look at again"),
    decisions.length > 0 && table(["queue", "samples", "", ""], decisions.map(([name, mark, count]) => queueRow(name, mark, count, null))),
    element("h2", {}, "One class at a glance"),
    element("p", {}, "Many pictures of one class: click those that are not of it, and one key decides the rest."),
    element("p", {}, field("Class", classBox("grid-class", "type a class", (label) => go({ page: "review", how: "grid", class: label < 0 ? "none" : String(label) })), "search")),
    element("h2", {}, "Any filter"),
    element("p", {}, "Choose filters under ", element("a", { href: link({}) }, "Browse"), " and come back here by the link Review above."),
    found.authors.length > 0 && element("p", { class: "soft" }, `${grouped(found.decided)} samples decided by ${found.authors.join(", ")}.`),
  ];
  page.replaceChildren(...parts.filter(Boolean));
}

/** What all kinds of review share: a queue, decisions sent to the server, undo. */
class Review {
  constructor(parent, count) {
    this.parent = parent;
    this.count = count;
    this.items = [];
    this.decided = this.total = 0;
    this.busy = false;
    this.keys = (event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    this.load();
  }

  stop() {
    this.isStopped = true;
    document.removeEventListener("keydown", this.keys);
    this.grid?.stop();
  }

  async load() {
    const parameters = query();
    parameters.set("count", this.count);
    parameters.set("author", author());
    const found = await attempt(() => ask(`api/queue?${parameters}`, { waiting: (text) => (byId("count").textContent = text) }));
    if (!found || this.isStopped) return;
    this.items = found.items;
    this.decided = found.decided;
    this.total = found.total;
    this.yield = found.yield;
    this.show();
  }

  show() {
    byId("count").textContent = `${grouped(this.decided)} of ${grouped(this.total)} decided`;
    this.grid?.stop();
    this.grid = null;
    if (this.items.length) this.draw();
    else this.parent.replaceChildren(this.end());
  }

  /** Send decisions; they are on disk before this returns true. */
  async send(decisions) {
    if (this.busy) return false;
    this.busy = true;
    const done = await attempt(() => post("api/decisions", { author: author(), decisions }));
    this.busy = false;
    return done !== null;
  }

  async undo() {
    if (this.busy) return;
    this.busy = true;
    const done = await attempt(() => post("api/undo", { author: author() }));
    this.busy = false;
    if (!done) return;
    if (!done.undone.length) {
      say("there is nothing to undo");
      return;
    }
    await this.load();
    this.undone(done);
    const [one] = done.undone;
    say(done.undone.length > 1 ? `${done.undone.length} decisions taken back` : `taken back: ${one.action} of ${one.key}`);
  }

  undone() {}

  key(event) {
    if (modified(event) || typingIn(event) || document.querySelector("dialog[open]")) return;
    const action = this.actions(event)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    // Enter on a button or link is that button's own.
    if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
    event.preventDefault();
    action();
  }

  head(...more) {
    const bar = element("span", { class: "progress", role: "img", "aria-label": `${this.decided} of ${this.total} decided` }, meter(this.total ? this.decided / this.total : 0));
    return element(
      "div",
      { class: "review-head" },
      element("p", {}, element("a", { href: link({ page: "review" }) }, "All queues"), " / ", element("b", {}, queueName())),
      bar,
      element("p", { class: "soft" }, `${grouped(this.decided)} of ${grouped(this.total)}`),
      more,
      reviewTools(() => this.load()),
    );
  }

  end() {
    return element(
      "div",
      { class: "page" },
      this.head(),
      element("h2", {}, this.total ? "All decided" : "Nothing to review here"),
      element("p", {}, this.total ? `${grouped(this.total)} samples. Save the decisions as a view, and train with it.` : "No sample is in this queue."),
      this.total > 0 && element("p", { class: "buttons" }, button("Save as a view …", askSave, { class: "main" }), button(["Undo ", element("kbd", {}, "U")], () => this.undo())),
    );
  }

  actions() {
    return { u: () => this.undo() };
  }
}

/** One picture or pair after the other: one key, one decision. */
class OneByOne extends Review {
  constructor(parent) {
    super(parent, 50);
  }

  get item() {
    return this.items[0] ?? null;
  }

  get suggested() {
    const finding = this.item?.finding;
    return finding?.proposal === "relabel" ? classOfId(finding.label) : -1;
  }

  get isPair() {
    return Boolean(this.item?.finding?.other);
  }

  draw() {
    const { row, finding } = this.item;
    this.reason = "";
    const shown = this.isPair
      ? element("div", { class: "pair" }, this.figure(row, "1"), this.figure(finding.other, "2"))
      : this.figure(row);
    this.parent.replaceChildren(
      element("div", { class: "review" }, this.head(), element("div", { class: "pictures" }, shown), this.side(row, finding)),
    );
    // The next pictures are there before they are asked for.
    for (const next of this.items.slice(1, 4)) {
      for (const one of [next.row, next.finding?.other]) if (one) new Image().src = thumbnail(one, LARGE);
    }
  }

  figure(row, key = null) {
    const picture = element("img", { src: thumbnail(row, LARGE), alt: described(row) });
    const frame = element("div", { class: "frame" }, picture);
    picture.addEventListener("error", () => broken(frame, picture));
    picture.addEventListener("load", () => picture.classList.toggle("tiny", picture.naturalWidth < 160));
    return element(
      "figure",
      {},
      frame,
      element(
        "figcaption",
        {},
        key && element("kbd", {}, key),
        element("b", {}, ` ${className(row.label)}`),
        ` ${row.split}, ${grouped(row.width)} × ${grouped(row.height)}, ${bytesText(row.size)} `,
        button(row.key, () => go({ sample: String(row.number) }), { class: "quiet link", title: "all of this sample" }),
      ),
    );
  }

  side(row, finding) {
    const act = (key, text, action, main = false) => button([element("span", {}, text), element("kbd", {}, key)], action, { class: main ? "main" : null });
    const choices = this.isPair ? this.pairChoices(act, row, finding) : this.choices(act, row);
    const reason = element("input", { id: "reason", placeholder: "optional", maxlength: 400, autocomplete: "off", input: () => (this.reason = reason.value), keydown: (event) => ["Escape", "Enter"].includes(event.key) && (event.preventDefault(), reason.blur()) });
    return element(
      "section",
      { "aria-label": "Decide" },
      element("p", { class: "question", role: "status" }, this.isPair ? "Keep which?" : `Is this ${className(row.label)}?`),
      finding && element("p", { class: "soft" }, finding.message),
      row.decisions.length > 0 && element("div", { class: inConflict(row.decisions) ? "conflict" : "" }, element("h3", {}, inConflict(row.decisions) ? "In conflict" : "Decided so far"), decisionList(row.decisions)),
      element("div", { class: "choices" }, choices, act("F", "Flag it for somebody else", () => this.decide("flag")), act("S", "Skip", () => this.decide("skip")), act("U", "Undo the last decision", () => this.undo())),
      field("Reason (R)", reason),
      this.yield && element("p", { class: "soft" }, this.yield),
      element("p", { class: "soft" }, "Each decision is on disk before the next picture shows."),
    );
  }

  choices(act, row) {
    return [
      this.suggested >= 0 && act("Enter", `No, it is ${className(this.suggested)}`, () => this.relabel(this.suggested), true),
      act("A", row.label < 0 ? "It is fine without a label" : `Yes, it is ${className(row.label)}`, () => this.decide("accept")),
      field("Another class (C, type, Enter)", classBox("class-box", "type a class", (label) => this.relabel(label))),
      act("X", "Exclude it from training", () => this.decide("exclude")),
    ];
  }

  pairChoices(act, row, finding) {
    const keepSecond = finding.proposal === "exclude";
    return [
      act("1", "Keep the first, exclude the second", () => this.keep(row, finding.other)),
      act(keepSecond ? "2 or Enter" : "2", "Keep the second, exclude the first", () => this.keep(finding.other, row), keepSecond),
      act("B", "Keep both", () => this.decide("accept")),
      act("X", "Exclude both", () => this.both("exclude")),
    ];
  }

  actions() {
    const one = {
      a: () => this.decide("accept"),
      x: () => (this.isPair ? this.both("exclude") : this.decide("exclude")),
      f: () => this.decide("flag"),
      s: () => this.decide("skip"),
      u: () => this.undo(),
      r: () => byId("reason")?.focus(),
    };
    if (!this.item) return { u: one.u };
    if (this.isPair) {
      const { row, finding } = this.item;
      const second = () => this.keep(finding.other, row);
      return { ...one, b: one.a, 1: () => this.keep(row, finding.other), 2: second, Enter: finding.proposal === "exclude" ? second : null };
    }
    return { ...one, c: () => byId("class-box")?.focus(), Enter: this.suggested >= 0 ? () => this.relabel(this.suggested) : null };
  }

  decision(row, action, more = {}) {
    return { split: row.split, key: row.key, action, old: classId(row.label), reason: this.reason, ...more };
  }

  relabel(label) {
    if (label < 0) say("a sample can't lose its label; exclude it");
    else this.decide("relabel", { new: classId(label) });
  }

  decide(action, more = {}) {
    return this.item && this.take([this.decision(this.item.row, action, more)]);
  }

  keep(kept, gone) {
    return this.take([this.decision(kept, "accept"), this.decision(gone, "exclude")]);
  }

  both(action) {
    const { row, finding } = this.item;
    return this.take([row, finding.other].map((one) => this.decision(one, action)));
  }

  async take(decisions) {
    if (!(await this.send(decisions)) || this.isStopped) return;
    const done = new Set(decisions.map((one) => `${one.split}/${one.key}`));
    const left = this.items.filter(({ row }) => !done.has(`${row.split}/${row.key}`));
    this.decided += this.items.length - left.length;
    this.items = left;
    if (left.length) this.show();
    else await this.load();
  }

  undone({ item }) {
    if (!item) return;
    const again = this.items.find((one) => one.row.number === item.row.number) ?? item;
    this.items = [again, ...this.items.filter((one) => one !== again)];
    this.show();
  }
}

/** Many pictures of one class: those that are clicked are not of it, one key decides the rest. */
class AtAGlance extends Review {
  constructor(parent) {
    super(parent, 60);
    this.wrong = new Set();
    this.gone = "flag";
  }

  get name() {
    return state.class === undefined || state.class === "none" ? "fine" : className(Number(state.class));
  }

  draw() {
    this.wrong.clear();
    const place = element("div", { class: "glance" });
    this.done = button("", () => this.finish(), { class: "main" });
    this.what = element("div", { class: "line" });
    this.parent.replaceChildren(element("div", { class: "glance-page" }, this.head(), element("p", { class: "question" }, `Click the ones that are not ${this.name}`), place, this.what));
    this.grid = new Grid(place, {
      rows: this.items.map((one) => one.row),
      takesFocus: true,
      selecting: this.wrong,
      label: `Pictures labelled ${this.name}; Space marks those that are not`,
      open: (row) => {
        if (!this.wrong.delete(row.number)) this.wrong.add(row.number);
        this.tell();
      },
    });
    const select = element("select", { change: () => (this.gone = select.value) }, [["flag", "flag them to look at again"], ["exclude", "exclude them"]].map(([value, text]) => element("option", { value }, text)));
    select.value = this.gone;
    this.what.append(this.done, field("The clicked ones", select), button([element("span", {}, "Undo "), element("kbd", {}, "U")], () => this.undo()));
    this.tell();
  }

  tell() {
    const right = this.items.length - this.wrong.size;
    this.done.replaceChildren(element("span", {}, `${grouped(this.wrong.size)} are not, the other ${grouped(right)} are ${this.name} `), element("kbd", {}, "Enter"));
  }

  actions() {
    return { Enter: () => this.finish(), u: () => this.undo() };
  }

  async finish() {
    const decisions = this.items.map(({ row }) => ({
      split: row.split,
      key: row.key,
      old: classId(row.label),
      action: this.wrong.has(row.number) ? this.gone : "accept",
      reason: this.wrong.has(row.number) ? `not ${this.name}` : "",
    }));
    if (await this.send(decisions)) await this.load();
  }
}

function review() {
  if (!filters().length) {
    reviewStart();
    return;
  }
  current = state.how === "grid" ? new AtAGlance(byId("main")) : new OneByOne(byId("main"));
}

// --- help, start ----------------------------------------------------------------------------------------------------

const HELP = [
  ["Everywhere", [["?", "this page"], ["/", "search"], ["Esc", "close"]]],
  ["Browse", [["arrows", "move"], ["Page Up, Page Down", "a screen"], ["Home, End", "first, last of a line"], ["Ctrl Home, Ctrl End", "first, last of all"], ["Enter", "open"]]],
  ["One sample", [["left, right", "previous, next"], ["+, -", "larger, smaller"], ["0", "fit"], ["double click", "larger here"]]],
  [
    "Review",
    [["Enter", "take what is suggested"], ["A", "the label is right"], ["C", "another class, by typing"], ["X", "exclude"], ["1, 2, B", "of two: keep the first, the second, both"], ["F", "flag"], ["S", "skip"], ["R", "a reason"], ["U", "undo"]],
  ],
  ["One class at a glance", [["arrows", "move"], ["Space", "not of this class"], ["Enter", "decide all that are shown"]]],
];

function showHelp() {
  const dialog = byId("help");
  if (dialog.open) return;
  dialog.replaceChildren(
    element("div", { class: "dialog-bar" }, element("h2", { id: "help-title" }, "Keys"), button("Close", () => dialog.close(), { class: "quiet" })),
    element(
      "div",
      { class: "dialog-text keys" },
      HELP.map(([title, keys]) =>
        element(
          "section",
          {},
          element("h3", {}, title),
          element("dl", { class: "facts" }, keys.flatMap(([key, text]) => [element("dt", {}, key.split(", ").map((one, i) => [i ? " " : "", element("kbd", {}, one)]).flat()), element("dd", {}, text)])),
        ),
      ),
    ),
  );
  dialog.showModal();
}

let shown = "";
function route() {
  state = readState();
  const page = state.page ?? "browse";
  const { sample, at, ...rest } = state;
  const next = JSON.stringify(rest);
  if (next !== shown) {
    shown = next;
    current?.stop?.();
    current = null;
    byId("count").textContent = "";
    const kept = Object.fromEntries([...filters(), ...Object.entries(state).filter(([name]) => name === "sort")]);
    for (const one of document.querySelectorAll("nav a")) {
      const other = one.dataset.page;
      one.href = link({ ...(page === "overview" ? {} : kept), page: other === "browse" ? "" : other, ...(other === "overview" ? Object.fromEntries(Object.keys(kept).map((name) => [name, ""])) : {}) });
      if (other === page) one.setAttribute("aria-current", "page");
      else one.removeAttribute("aria-current");
    }
    fillFilters();
    // A bookmark that needs the metadata reads it.
    if (!columns && dataset.has_json && Object.keys(rest).some((name) => name.includes("json.")) && page === "browse") {
      attempt(async () => {
        columns = (await ask("api/columns")).columns;
        fillFilters();
      });
    }
    if (page === "overview") overview();
    else if (page === "review") review();
    else browse();
  }
  if (sample) {
    if (String(shownSample?.found.number) !== sample) showSample(Number(sample));
  } else if (byId("sample").open) byId("sample").close();
}

async function start() {
  dataset = await attempt(() => ask("api/dataset"));
  if (!dataset) return;
  document.title = `${dataset.name} · imgdata view`;
  byId("name").textContent = dataset.name;
  byId("help-button").addEventListener("click", showHelp);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("sample").addEventListener("close", sampleClosed);
  byId("sample").addEventListener("keydown", sampleKey);
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  document.addEventListener("keydown", (event) => {
    if (typingIn(event) || modified(event)) return;
    if (event.key === "?") showHelp();
    if (event.key === "/" && byId("filters").elements.text) {
      event.preventDefault();
      byId("filters").elements.text.focus();
    }
  });
  window.addEventListener("hashchange", route);
  route();
}

start();
