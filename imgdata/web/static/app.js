// The viewer's pages: a grid over any number of rows, one sample, an overview, review by keyboard.
// The whole state is in the address after `#`, so that a page can be bookmarked and sent. Text from the dataset is only
// ever set as text.

const MOST_PIXELS = 7_500_000; // Browsers cap the height of an element, Chrome near 16.7 million pixels.
const PAGE = 100; // Rows of one request.
const PAGES_KEPT = 60;
const FLING = 6; // Rows of cells scrolled by in a frame, from which no picture is asked for.

let dataset = null;
let state = {};

// --- small things ---------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** Return an element: `element("p", {class: "soft"}, "text", child)`; handlers are functions, the rest attributes. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const grouped = (number) => number.toLocaleString("en-US");
const percent = (share) => `${Math.round(share * 100)}%`;
const className = (label) => (label < 0 ? "no label" : (dataset.classes[label]?.[1] ?? `class ${label}`));
const classId = (label) => (label < 0 ? "" : dataset.classes[label][0]);
const classOfId = (id) => dataset.classes.findIndex((one) => one[0] === id);
const described = (row) => `${row.key}, ${className(row.label)}`;

let clearing = 0;
function say(text) {
  byId("message").textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (byId("message").textContent = ""), 6000);
}

/** Return the JSON of an address; throws an `Error` with the server's message. */
async function ask(path, options = {}) {
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
  return answer;
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

function readState() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** Change the address; `replace` keeps the browser's history short while typing or scrolling. */
function go(changes, { replace = false } = {}) {
  const next = { ...state, ...changes };
  const kept = Object.entries(next).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const hash = `#${new URLSearchParams(kept)}`;
  if (hash === location.hash) return;
  if (replace) {
    history.replaceState(null, "", hash);
    state = readState();
  } else {
    location.hash = hash;
  }
}

const FILTERS = ["split", "class", "text", "format", "mark", "sort"];
const BOUNDS = ["width_min", "width_max", "height_min", "height_max", "size_min", "size_max"];

function query() {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (FILTERS.includes(name) || /_(min|max)$/.test(name)) parameters.set(name, value);
  }
  return parameters;
}

// --- filters --------------------------------------------------------------------------------------------------------

function field(label, control, kind = "") {
  return element("label", { class: `field ${kind}` }, label, control);
}

function choice(name, options) {
  const select = element("select", { name, change: () => go({ [name]: select.value, at: "" }) });
  for (const [value, text] of options) select.append(element("option", { value }, text));
  select.value = state[name] ?? "";
  return select;
}

let typing = 0;
function typed(name, placeholder, type = "search") {
  const input = element("input", {
    name,
    type,
    placeholder,
    value: state[name] ?? "",
    autocomplete: "off",
    min: type === "number" ? 0 : null,
    input: () => {
      clearTimeout(typing);
      typing = setTimeout(() => go({ [name]: input.value.trim(), at: "" }), 250);
    },
  });
  return input;
}

function classField() {
  const names = element("datalist", { id: "classes" });
  for (const [number, one] of dataset.classes.slice(0, 2000).entries()) {
    names.append(element("option", { value: one[1] }, `${one[0]} (${number})`));
  }
  const input = element("input", {
    list: "classes",
    type: "search",
    placeholder: "any",
    autocomplete: "off",
    value: state.class === undefined ? "" : state.class === "none" ? "none" : className(Number(state.class)),
    change: () => {
      const text = input.value.trim();
      const found = dataset.classes.findIndex((one) => one[1] === text || one[0] === text);
      if (text && text !== "none" && found < 0) say(`no class is named ${text}`);
      else go({ class: text === "" ? "" : text === "none" ? "none" : String(found), at: "" });
    },
  });
  return field("Class", element("span", {}, input, names), "wide");
}

function fillFilters() {
  const form = byId("filters");
  if ((state.page ?? "browse") !== "browse") {
    form.replaceChildren();
    return;
  }
  const focused = form.contains(document.activeElement) ? document.activeElement.name : "";
  const sorts = [
    ["", "order of the shards"],
    ...["key", "source", "width", "height", "pixels", "size", "label", ...dataset.columns].flatMap((name) => [
      [name, `${name}, smallest first`],
      [`-${name}`, `${name}, largest first`],
    ]),
  ];
  const marks = [
    ["", "any"],
    ...Object.entries(dataset.findings).map(([kind, count]) => [`finding:${kind}`, `finding: ${kind} (${grouped(count)})`]),
    ...["accept", "relabel", "exclude", "flag", "conflict"].map((one) => [`decision:${one}`, `decision: ${one}`]),
    ...dataset.views.map((name) => [`view:${name}`, `view: ${name}`]),
  ];
  form.replaceChildren(
    field("Key or source name holds", typed("text", "text"), "wide"),
    field("Split", choice("split", [["", "all"], ...dataset.splits.map((one) => [one.name, one.name])])),
    classField(),
    field("Set", choice("mark", marks)),
    field("Format", choice("format", [["", "any"], ...dataset.formats.map((one) => [one, one])])),
    field("Sort by", choice("sort", sorts)),
    field("Width from", typed("width_min", "px", "number"), "narrow"),
    field("to", typed("width_max", "px", "number"), "narrow"),
    field("Bytes from", typed("size_min", "bytes", "number"), "narrow"),
    field("to", typed("size_max", "bytes", "number"), "narrow"),
    element("button", { type: "button", class: "quiet", click: () => clearFilters() }, "Clear"),
  );
  if (focused) form.elements[focused]?.focus();
}

function clearFilters() {
  go(Object.fromEntries([...FILTERS, ...BOUNDS, "at"].map((name) => [name, ""])));
}

// --- the grid -------------------------------------------------------------------------------------------------------

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
    await attempt(async () => {
      const answer = await ask(`api/rows?${parameters}`, { signal: controller.signal });
      this.total = answer.total;
      this.known.delete(page);
      this.known.set(page, answer.rows);
      while (this.known.size > PAGES_KEPT) this.known.delete(this.known.keys().next().value);
    });
    if (this.asked.get(page) === controller) this.asked.delete(page);
    if (!controller.signal.aborted) this.arrived();
  }

  stop() {
    for (const controller of this.asked.values()) controller.abort();
    this.asked.clear();
  }
}

class Grid {
  constructor(parent, parameters, { place = 0, selecting = null, open }) {
    this.selecting = selecting;
    this.open = open;
    this.pages = new Pages(parameters, () => this.draw());
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
      "aria-label": "Pictures",
      "aria-multiselectable": selecting ? "true" : null,
      scroll: () => this.scrolled(),
      keydown: (event) => this.key(event),
      click: (event) => this.clicked(event),
    });
    this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
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
    this.view = this.scroller.clientHeight;
    this.columns = Math.max(Math.floor(this.scroller.clientWidth / side), 1);
    this.width = this.scroller.clientWidth / this.columns;
    this.height = side + 24;
    this.layer.style.height = `${this.view}px`;
    for (const node of [...this.nodes.values(), ...this.free]) node.remove();
    this.nodes.clear();
    this.free = [];
    this.sized = false;
    this.draw();
  }

  /** Lay out once the number of rows is known, with the active cell in sight. */
  size() {
    this.sized = true;
    this.spacer.style.height = `${Math.min(this.rows * this.height, MOST_PIXELS)}px`;
    this.scroller.setAttribute("aria-rowcount", this.rows);
    this.scroller.setAttribute("aria-colcount", this.columns);
    this.show(this.active);
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
    this.move(this.offset + event.deltaY * (event.deltaMode === 1 ? 40 : 1));
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
    showCount(this.pages.total);
    if (!this.pages.total) {
      this.layer.replaceChildren(element("p", { class: "nothing" }, "No sample meets these filters."));
      return;
    }
    const first = Math.max(Math.floor(this.offset / this.height) - 1, 0);
    const last = Math.min(Math.ceil((this.offset + this.view) / this.height) + 1, this.rows);
    const speed = Math.abs(first - this.last);
    this.last = first;
    const fast = speed > FLING;
    if (!fast) this.pages.want(first * this.columns, last * this.columns - 1);
    for (const [number, node] of this.nodes) {
      if (number < first || number >= last) {
        this.nodes.delete(number);
        this.free.push(node);
      }
    }
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
    clearTimeout(this.settling);
    if (fast) this.settling = setTimeout(() => this.draw(), 80);
  }

  rowNode() {
    const node = element("div", { class: "row", role: "row" });
    for (let column = 0; column < this.columns; column++) {
      const cell = element(
        "div",
        { class: "cell", role: "gridcell", tabindex: "-1", "aria-colindex": column + 1 },
        element("div", { class: "frame" }, element("img", { alt: "", draggable: "false", decoding: "async" })),
        element("p"),
      );
      cell.style.width = `${this.width}px`;
      const image = cell.querySelector("img");
      image.addEventListener("error", () => broken(cell, image));
      node.append(cell);
    }
    this.layer.append(node);
    return node;
  }

  fill(cell, place, fast) {
    const row = place < this.pages.total ? this.pages.at(place) : null;
    cell.tabIndex = place === this.active ? 0 : -1;
    cell.dataset.place = place;
    cell.hidden = place >= this.pages.total;
    if (this.selecting && row) cell.setAttribute("aria-selected", this.selecting.has(row.number));
    const shown = row ? `${row.number} ${JSON.stringify(row.decisions)}` : "";
    if (cell.dataset.shown === shown) return;
    const image = cell.querySelector("img");
    cell.querySelector(".badge")?.remove();
    cell.querySelector(".broken")?.remove();
    if (!row || fast) {
      cell.dataset.shown = "";
      image.removeAttribute("src"); // Hangs up on a picture that nobody waits for.
      image.alt = "";
      cell.querySelector("p").textContent = "";
      return;
    }
    cell.dataset.shown = shown;
    image.src = thumbnail(row, thumbSide(this.height - 24));
    image.alt = described(row);
    cell.querySelector("p").textContent = className(row.label);
    cell.title = row.key;
    const decided = decisionText(row);
    if (decided) cell.querySelector(".frame").append(element("span", { class: "badge" }, decided));
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
    this.scroller.querySelector(`.cell[data-place="${this.active}"]`)?.focus({ preventScroll: true });
    go({ at: String(this.active || "") }, { replace: true });
  }

  key(event) {
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
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose();
    }
  }
}

const thumbSide = (pixels) => {
  const wanted = pixels * Math.min(window.devicePixelRatio || 1, 2);
  return [64, 96, 128, 160, 224, 320, 480].find((side) => side >= wanted * 0.85) ?? 480;
};
const thumbnail = (row, side) => `thumb/${row.number}/${side}?v=${row.hash ?? row.xxh64}`;

function broken(cell, image) {
  if (!image.hasAttribute("src")) return;
  image.removeAttribute("src");
  cell.querySelector(".broken")?.remove();
  cell.querySelector(".frame, figure")?.append(element("span", { class: "broken" }, "can't be decoded"));
}

function decisionText(row) {
  const all = row.decisions ?? [];
  const different = new Set(all.map((one) => `${one.action} ${one.new}`));
  if (different.size > 1) return "conflict";
  const [one] = all;
  if (!one || one.action === "skip") return "";
  if (one.action === "relabel") return `→ ${className(classOfId(one.new))}`;
  return { accept: "✓", exclude: "excluded", flag: "flagged" }[one.action] ?? "";
}

function showCount(total) {
  const all = dataset.samples;
  byId("count").textContent =
    total === all ? `${grouped(all)} samples` : `${grouped(total)} of ${grouped(all)} samples`;
}

// --- pages ----------------------------------------------------------------------------------------------------------

let current = null; // What has to be stopped when the page changes.

function browse() {
  const grid = new Grid(byId("main"), query(), {
    place: Number(state.at ?? 0),
    open: (row) => go({ sample: String(row.number) }),
  });
  current = grid;
}

async function overview() {
  const page = element("div", { class: "page" }, element("p", { class: "soft" }, "Counting …"));
  byId("main").replaceChildren(page);
  const found = await attempt(() => ask("api/overview"));
  if (!found || state.page !== "overview") return;
  page.replaceChildren(...overviewParts(found));
}

function overviewParts(found) {
  const most = Math.max(...found.classes.map((one) => one.samples), 1);
  const classRows = found.classes.map((one) =>
    element(
      "tr",
      {},
      element("td", {}, element("a", { href: link({ page: "", class: one.label < 0 ? "none" : one.label }) }, one.name)),
      element("td", { class: "number" }, grouped(one.samples)),
      element("td", { class: "bar-cell" }, meter(one.samples / most)),
      element("td", {}, strip(one.examples)),
    ),
  );
  return [
    element("h2", {}, `${grouped(dataset.samples)} samples in ${grouped(dataset.classes.length)} classes`),
    table(["split", "samples", "labelled"], found.splits.map((one) => [one.name, one.samples, one.labelled])),
    ...(Object.keys(dataset.findings).length
      ? [
          element("h2", {}, "Findings of the audit"),
          table(
            ["kind", "samples"],
            Object.entries(dataset.findings).map(([kind, count]) => [
              element("a", { href: link({ page: "review", mark: `finding:${kind}` }) }, kind),
              count,
            ]),
          ),
        ]
      : []),
    element("h2", {}, "Formats and sizes"),
    table(["format", "samples"], found.formats.map((one) => [one.name, one.samples])),
    table(["", "smallest", "median", "largest"], found.sizes.map((one) => [one.name, one.least, one.median, one.most])),
    element("h2", {}, "Classes"),
    element("div", { class: "table-scroll" }, element("table", {}, element("tbody", {}, ...classRows))),
    ...(found.views.length
      ? [
          element("h2", {}, "Saved views"),
          table(
            ["view", "split", "samples", "steps"],
            found.views.map((one) => [
              element("a", { href: link({ page: "", mark: `view:${one.name}` }) }, one.name),
              one.split,
              one.samples,
              one.expression,
            ]),
          ),
        ]
      : []),
  ];
}

const link = (changes) => `#${new URLSearchParams(Object.entries(changes).filter(([, value]) => value !== ""))}`;

function meter(share) {
  const bar = element("span", { class: "meter", "aria-hidden": "true" });
  bar.style.width = percent(share);
  return bar;
}

function table(names, rows) {
  const isNumber = (value) => typeof value === "number";
  return element(
    "div",
    { class: "table-scroll" },
    element(
      "table",
      {},
      element(
        "thead",
        {},
        element("tr", {}, ...names.map((name, i) => element("th", { scope: "col", class: isNumber(rows[0]?.[i]) ? "number" : null }, name))),
      ),
      element(
        "tbody",
        {},
        ...rows.map((row) =>
          element(
            "tr",
            {},
            ...row.map((value) =>
              element("td", { class: isNumber(value) ? "number" : null }, isNumber(value) ? grouped(value) : value),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Pictures in a row, each opens its sample. */
function strip(rows, caption = () => null) {
  return element(
    "div",
    { class: "strip" },
    ...rows.map((row) => {
      const text = caption(row);
      return element(
        "button",
        { type: "button", click: () => go({ sample: String(row.number) }) },
        element(
          "figure",
          {},
          element("img", { src: thumbnail(row, 96), alt: described(row), loading: "lazy", title: described(row) }),
          text && element("figcaption", {}, text),
        ),
      );
    }),
  );
}

// --- one sample -----------------------------------------------------------------------------------------------------

async function showSample(number) {
  const dialog = byId("sample");
  const found = await attempt(() => ask(`api/sample/${number}`));
  if (!found || state.sample !== String(number)) return;
  const zoom = element(
    "div",
    { class: "zoom", tabindex: "0", role: "group", "aria-label": "Picture; Enter shows each pixel as it is" },
    element("img", { src: `picture/${number}`, alt: described(found) }),
  );
  const turn = () => zoom.classList.toggle("whole");
  zoom.addEventListener("click", turn);
  zoom.addEventListener("keydown", (event) => event.key === "Enter" && turn());
  zoom.querySelector("img").addEventListener("error", (event) => {
    // A format that browsers don't show.
    if (!event.target.src.includes("/thumb/")) event.target.src = thumbnail(found, 480);
  });
  dialog.replaceChildren(
    element(
      "div",
      { class: "dialog-bar" },
      element("h2", { id: "sample-title" }, found.key),
      element("a", { href: `picture/${number}`, download: `${found.key.replaceAll("/", "_")}.${found.format}` }, "Download"),
      element("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Close"),
    ),
    element("div", { class: "sample" }, element("div", {}, zoom, ...madeOf(found)), sampleFacts(found)),
  );
  if (!dialog.open) dialog.showModal();
}

function sampleFacts(found) {
  const label = found.label < 0 ? "none" : `${className(found.label)} (${classId(found.label)})`;
  const facts = [
    ["class", label],
    ["split", `${found.split}, position ${grouped(found.position)}`],
    ["source", found.source],
    ["pixels", `${grouped(found.width)} × ${grouped(found.height)}, ${found.format} ${found.mode}`],
    ["orientation", found.orientation === 1 ? null : `EXIF ${found.orientation}`],
    ["bytes", `${grouped(found.size)} from ${grouped(found.offset)} of ${found.shard}`],
    ["xxh64", found.xxh64],
    ...Object.entries(found.fields ?? {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  ];
  return element(
    "div",
    {},
    element(
      "dl",
      { class: "facts" },
      ...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    ),
    ...(found.decisions.length
      ? [
          element("h3", {}, "Decisions"),
          table(["author", "decision", "reason"], found.decisions.map((one) => [one.author, `${one.action} ${one.new}`, one.reason])),
        ]
      : []),
    ...(found.findings ?? []).map((one) =>
      element("div", {}, element("h3", {}, one.kind), element("p", {}, one.message), one.other && strip([one.other])),
    ),
    ...(found.prediction
      ? [
          element("h3", {}, "What the run predicts"),
          table(["class", "probability"], found.prediction.map((one) => [className(one.label), percent(one.probability)])),
        ]
      : []),
    element("h3", {}, "More of this class"),
    strip(found.same_class ?? []),
  );
}

function madeOf(found) {
  if (!found.augmented?.length) return [];
  return [
    element("h3", {}, "What training makes of it"),
    element(
      "div",
      { class: "strip" },
      ...found.augmented.map((one) =>
        element(
          "figure",
          {},
          element("img", { src: one.path, alt: `augmented in epoch ${one.epoch}`, loading: "lazy" }),
          element("figcaption", {}, `epoch ${one.epoch}`),
        ),
      ),
    ),
  ];
}

// --- review ---------------------------------------------------------------------------------------------------------

class Review {
  constructor(parent) {
    this.parent = parent;
    this.items = [];
    this.decided = 0;
    this.total = 0;
    this.busy = false;
    this.keys = (event) => this.key(event);
    document.addEventListener("keydown", this.keys);
    this.load();
  }

  stop() {
    document.removeEventListener("keydown", this.keys);
  }

  async load() {
    const found = await attempt(() => ask(`api/queue?${query()}&count=50`));
    if (!found) return;
    this.items = found.items;
    this.decided = found.decided;
    this.total = found.total;
    this.yield = found.yield;
    this.show();
  }

  get item() {
    return this.items[0] ?? null;
  }

  show() {
    byId("count").textContent = `${grouped(this.decided)} of ${grouped(this.total)} decided`;
    if (!this.item) {
      this.parent.replaceChildren(this.end());
      return;
    }
    const { row, finding } = this.item;
    const picture = element("img", { src: thumbnail(row, 480), alt: described(row) });
    const figure = element("figure", {}, picture);
    picture.addEventListener("error", () => broken(this.parent, picture));
    this.parent.replaceChildren(
      element("div", { class: "review" }, element("div", {}, figure, finding?.other && this.beside(finding)), this.side(row, finding)),
    );
    // The next picture is there before it is asked for.
    for (const next of this.items.slice(1, 4)) new Image().src = thumbnail(next.row, 480);
  }

  beside(finding) {
    return element("div", {}, element("h3", {}, "Beside it"), strip([finding.other], (row) => described(row)));
  }

  side(row, finding) {
    const suggested = finding?.proposal === "relabel" ? classOfId(finding.label) : -1;
    const button = (key, text, action, main = false) =>
      element("button", { type: "button", class: main ? "main" : null, click: action }, text, element("kbd", {}, key));
    return element(
      "section",
      { "aria-label": "Decide" },
      element("p", { class: "question", id: "question" }, `Is this ${className(row.label)}?`),
      element("p", { class: "soft" }, finding?.message ?? row.key),
      element("div", { class: "progress", "aria-hidden": "true" }, this.bar()),
      element(
        "div",
        { class: "choices" },
        suggested >= 0 && button("Enter", `No: ${className(suggested)}`, () => this.relabel(suggested), true),
        button("A", "Yes, the label is right", () => this.decide("accept")),
        this.classBox(),
        button("X", "Exclude it from training", () => this.decide("exclude")),
        button("F", "Flag it for somebody else", () => this.decide("flag")),
        button("S", "Skip", () => this.decide("skip")),
        button("U", "Undo the last decision", () => this.undo()),
      ),
      this.yield && element("p", { class: "soft" }, this.yield),
      element("p", { class: "soft" }, `${grouped(this.decided)} of ${grouped(this.total)} decided. Each decision is on disk before the next picture shows.`),
      element("p", {}, element("button", { type: "button", click: () => this.save() }, "Save as a view …"), " ", element("a", { href: "api/decisions.csv", download: "decisions.csv" }, "Export CSV")),
    );
  }

  bar() {
    const bar = element("span");
    bar.style.width = percent(this.total ? this.decided / this.total : 0);
    return bar;
  }

  classBox() {
    const names = element("datalist", { id: "review-classes" });
    for (const one of dataset.classes.slice(0, 2000)) names.append(element("option", { value: one[1] }, one[0]));
    const input = element("input", {
      id: "class-box",
      list: "review-classes",
      placeholder: "another class …",
      autocomplete: "off",
      keydown: (event) => {
        if (event.key === "Escape") input.blur();
        if (event.key !== "Enter") return;
        event.preventDefault();
        event.stopPropagation();
        const found = dataset.classes.findIndex((one) => one[1] === input.value || one[0] === input.value);
        if (found < 0) say(`no class is named ${input.value}`);
        else this.relabel(found);
      },
    });
    return element("label", { class: "field" }, "Another class (C, then type, then Enter)", element("span", {}, input, names));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog[open]")) return;
    const suggested = this.item?.finding?.proposal === "relabel" ? classOfId(this.item.finding.label) : -1;
    const actions = {
      a: () => this.decide("accept"),
      x: () => this.decide("exclude"),
      f: () => this.decide("flag"),
      s: () => this.decide("skip"),
      u: () => this.undo(),
      c: () => byId("class-box")?.focus(),
      enter: suggested >= 0 && event.target.tagName !== "BUTTON" && event.target.tagName !== "A" ? () => this.relabel(suggested) : null,
    };
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  relabel(label) {
    return this.decide("relabel", { new: classId(label) });
  }

  async decide(action, more = {}) {
    if (this.busy || !this.item) return;
    this.busy = true;
    const { row } = this.item;
    const decision = { split: row.split, key: row.key, action, old: classId(row.label), ...more };
    const done = await attempt(() => post("api/decisions", { decisions: [decision] }));
    this.busy = false;
    if (!done) return;
    this.items.shift();
    this.decided += 1;
    if (this.items.length) this.show();
    else await this.load();
  }

  async undo() {
    const done = await attempt(() => post("api/undo", {}));
    if (!done) return;
    if (!done.undone) say("there is nothing to undo");
    else await this.load();
    if (done.undone && done.item) {
      this.items = [done.item, ...this.items.filter((one) => one.row.number !== done.item.row.number)];
      this.show();
    }
  }

  async save() {
    const name = window.prompt("Name of the view, of a-z, 0-9, _ and -", "reviewed");
    if (!name) return;
    const done = await attempt(() => post("api/save-view", { name }));
    if (done) say(done.message);
  }

  end() {
    return element(
      "div",
      { class: "page" },
      element("h2", {}, this.total ? "All decided" : "Nothing to review"),
      element(
        "p",
        {},
        this.total
          ? `${grouped(this.total)} samples. Save the decisions as a view, and train with it.`
          : "Start the viewer with --findings, or choose a filter under Browse and come back.",
      ),
      this.total ? element("p", {}, element("button", { type: "button", class: "main", click: () => this.save() }, "Save as a view …")) : null,
    );
  }
}

// --- help, start ----------------------------------------------------------------------------------------------------

const HELP = [
  ["Everywhere", [["?", "this page"], ["/", "search"], ["Esc", "close"]]],
  ["Browse", [["arrows", "move"], ["Page Up, Page Down", "a screen"], ["Ctrl Home, Ctrl End", "first, last"], ["Enter", "open"]]],
  [
    "Review",
    [["Enter", "take the suggested class"], ["A", "the label is right"], ["C", "another class"], ["X", "exclude"], ["F", "flag"], ["S", "skip"], ["U", "undo"]],
  ],
];

function showHelp() {
  const dialog = byId("help");
  dialog.replaceChildren(
    element(
      "div",
      { class: "dialog-bar" },
      element("h2", { id: "help-title" }, "Keys"),
      element("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Close"),
    ),
    element(
      "div",
      { class: "dialog-text" },
      ...HELP.flatMap(([title, keys]) => [
        element("h3", {}, title),
        element("dl", { class: "facts" }, ...keys.flatMap(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)])),
      ]),
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
    for (const one of document.querySelectorAll("nav a")) {
      one.href = link({ ...rest, page: one.dataset.page === "browse" ? "" : one.dataset.page });
      if (one.dataset.page === page) one.setAttribute("aria-current", "page");
      else one.removeAttribute("aria-current");
    }
    fillFilters();
    if (page === "overview") overview();
    else if (page === "review") current = new Review(byId("main"));
    else browse();
  }
  if (sample) showSample(Number(sample));
  else if (byId("sample").open) byId("sample").close();
}

async function start() {
  dataset = await attempt(() => ask("api/dataset"));
  if (!dataset) return;
  document.title = `${dataset.name} · imgdata view`;
  byId("name").textContent = dataset.name;
  byId("help-button").addEventListener("click", showHelp);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("sample").addEventListener("close", () => go({ sample: "" }));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select")) return;
    if (event.key === "?") showHelp();
    if (event.key === "/") {
      event.preventDefault();
      byId("filters").elements.text?.focus();
    }
  });
  window.addEventListener("hashchange", route);
  route();
}

start();
