// The mask painter: a label map (one byte a pixel) is drawn by hand, with no pixel of any class but those chosen.
//
// The state is a Uint8Array of labels. Tools write whole labels into it; what is seen is made from it with
// putImageData, on a canvas of exactly the mask's size that CSS enlarges. Nothing is ever read back from a canvas, so
// neither anti-aliasing nor scaling nor colour management can change a class. Outlines, names and the brush are drawn
// on a second canvas above, in screen pixels.
//
// mount(root, options) builds a painter in any page; the default export is the same for anywidget. No dependencies.

const BACKGROUND = 0;
const UNDO_BYTES = 64 << 20; // what undo may keep: 256 steps at 512 x 512
const FILE_BYTES = 32 << 20; // the largest file that is handed on
const MAX_ZOOM = 32;
const MAX_BRUSH = 200;

// --- label maps as JSON: {width, height, labels: base64 of the bytes, row by row} -----------------------------------

export function pack({ labels, width, height }) {
  let text = "";
  for (let at = 0; at < labels.length; at += 0x8000) {
    text += String.fromCharCode(...labels.subarray(at, at + 0x8000)); // all at once would overflow the call stack
  }
  return { width, height, labels: btoa(text) };
}

export function unpack({ labels, width, height }) {
  return { width, height, labels: Uint8Array.from(atob(labels), (character) => character.charCodeAt(0)) };
}

// --- shapes, as pure functions of whole numbers ---------------------------------------------------------------------

// A hard-edged disc of `size` pixels across: [row, from, to) around its centre. A pixel belongs to it where its middle
// is at most size / 2 away from the disc's middle; doubled, all of that is whole numbers.
export function discRows(size) {
  const rows = [];
  const half = Math.floor(size / 2);
  for (let i = 0; i < size; i++) {
    const v = 2 * i - (size - 1);
    const reach = Math.floor(Math.sqrt(size * size - v * v));
    const from = Math.ceil((size - 1 - reach) / 2);
    rows.push([i - half, from - half, size - from - half]);
  }
  return rows;
}

// The pixels from one to another, both included: `visit(x, y)` is called for each.
export function alongLine(x0, y0, x1, y1, visit) {
  const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
  const between = (start, end, step) => start + Math.floor((2 * step * (end - start) + steps) / (2 * steps));
  for (let step = 0; step <= steps; step++) visit(between(x0, x1, step), between(y0, y1, step));
}

// Walks over places joined by edges: `take(at)` says whether a place belongs, and must say so only once.
function spread(first, width, count, take) {
  const stack = [first];
  while (stack.length) {
    const at = stack.pop();
    if (!take(at)) continue;
    if (at % width > 0) stack.push(at - 1);
    if (at % width < width - 1) stack.push(at + 1);
    if (at >= width) stack.push(at - width);
    if (at + width < count) stack.push(at + width);
  }
}

// Gives the connected region of equal labels around (x, y) another label.
export function floodFill(labels, width, x, y, index) {
  const old = labels[y * width + x];
  if (old === index) return;
  spread(y * width + x, width, labels.length, (at) => {
    if (labels[at] !== old) return false;
    labels[at] = index;
    return true;
  });
}

// The borders of a class as straight pieces [x0, y0, x1, y1, ...] between pixels; none where they are too many to see.
export function outlineOf(labels, width, height, index, most = 20000) {
  const found = [];
  for (const upright of [false, true]) {
    const lines = upright ? width : height;
    const along = upright ? height : width;
    const stride = upright ? width : 1;
    const between = upright ? 1 : width;
    for (let line = 0; line <= lines; line++) {
      let start = -1;
      for (let at = 0; at <= along; at++) {
        const here = line * between + at * stride;
        const inside = line < lines && at < along && labels[here] === index;
        const beside = line > 0 && at < along && labels[here - between] === index;
        if (inside !== beside && start < 0) start = at;
        if (inside === beside && start >= 0) {
          found.push(...(upright ? [line, start, line, at] : [start, line, at, line]));
          start = -1;
          if (found.length > 4 * most) return [];
        }
      }
    }
  }
  return found;
}

// The connected regions, largest first: {index, area, x, y, radius}, where (x, y) is the place farthest from the
// region's border and radius how far that is. A large map is looked at on a coarser grid: names need no more.
export function regionsOf(labels, width, height) {
  const step = Math.ceil(Math.max(width, height) / 256);
  const columns = Math.ceil(width / step);
  const rows = Math.ceil(height / step);
  const grid = new Uint8Array(columns * rows);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) grid[y * columns + x] = labels[y * step * width + x * step];
  }
  const depth = new Uint16Array(grid.length); // steps to the nearest other label or edge
  const reach = (at, neighbour, exists) => (exists && grid[neighbour] === grid[at] ? depth[neighbour] : 0);
  for (let at = 0; at < grid.length; at++) {
    const left = reach(at, at - 1, at % columns > 0);
    depth[at] = 1 + Math.min(left, reach(at, at - columns, at >= columns));
  }
  for (let at = grid.length - 1; at >= 0; at--) {
    const right = reach(at, at + 1, at % columns < columns - 1);
    depth[at] = Math.min(depth[at], 1 + right, 1 + reach(at, at + columns, at + columns < grid.length));
  }
  const seen = new Uint8Array(grid.length);
  const regions = [];
  for (let first = 0; first < grid.length; first++) {
    if (seen[first]) continue;
    let [area, best] = [0, first];
    spread(first, columns, grid.length, (at) => {
      if (seen[at] || grid[at] !== grid[first]) return false;
      seen[at] = 1;
      area++;
      if (depth[at] > depth[best]) best = at;
      return true;
    });
    const [x, y] = [(best % columns) + 0.5, Math.floor(best / columns) + 0.5];
    regions.push({ index: grid[first], area, x: x * step, y: y * step, radius: depth[best] * step });
  }
  return regions.sort((a, b) => b.area - a.area);
}

// --- the sheet: labels, how they change, and what can be taken back --------------------------------------------------

const emptyBox = () => ({ left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity });

class Sheet {
  constructor(canvas, mirrors, { labels, width, height }) {
    Object.assign(this, { canvas, mirrors }); // mirrors: index -> what lies on the other side of the face
    this.context = canvas.getContext("2d");
    this.colors = new Uint32Array(256);
    [this.past, this.future] = [[], []];
    this.put({ labels, width, height });
  }

  // Another label map, of any size, in place of this one.
  put({ labels, width, height }) {
    if (width !== this.width || height !== this.height) {
      [this.width, this.height] = [this.canvas.width, this.canvas.height] = [width, height];
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.labels = labels.slice();
    this.repaint();
  }

  get() {
    return { labels: this.labels.slice(), width: this.width, height: this.height };
  }

  at([x, y]) {
    return this.labels[y * this.width + x];
  }

  has([x, y]) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  // Shows what the labels say within a box; the rest of the canvas is not touched, so a stroke costs what it covers.
  repaint({ left, top, right, bottom } = { left: 0, top: 0, right: this.width, bottom: this.height }) {
    if (right <= left) return;
    for (let y = top; y < bottom; y++) {
      for (let at = y * this.width + left; at < y * this.width + right; at++) {
        this.pixels[at] = this.colors[this.labels[at]];
      }
    }
    this.context.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
  }

  // Stamps discs from one pixel to another. With `mirror` the other side gets the class that lies there, and first, so
  // that the hand's own side wins where both meet.
  stamp([x0, y0], [x1, y1], rows, index, mirror) {
    const box = emptyBox();
    const fill = (y, start, end, label) => {
      const [from, to] = [Math.max(0, start), Math.min(this.width, end)];
      if (y < 0 || y >= this.height || from >= to) return;
      this.labels.fill(label, y * this.width + from, y * this.width + to);
      [box.left, box.right] = [Math.min(box.left, from), Math.max(box.right, to)];
      [box.top, box.bottom] = [Math.min(box.top, y), Math.max(box.bottom, y + 1)];
    };
    alongLine(x0, y0, x1, y1, (x, y) => {
      if (mirror) {
        for (const [row, from, to] of rows) {
          fill(y + row, this.width - x - to, this.width - x - from, this.mirrors[index]);
        }
      }
      for (const [row, from, to] of rows) fill(y + row, x + from, x + to, index);
    });
    this.repaint(box);
  }

  // The other side is filled too, unless it belongs to the very region that has just been filled.
  fill([x, y], index, mirror) {
    const other = this.width - 1 - x;
    const before = this.at([other, y]);
    floodFill(this.labels, this.width, x, y, index);
    if (mirror && this.at([other, y]) === before) floodFill(this.labels, this.width, other, y, this.mirrors[index]);
    this.repaint();
  }

  // Keeps what a change has replaced; false where it changed nothing. The oldest steps go when memory is full.
  keep(before) {
    const equal = before.width === this.width && before.height === this.height;
    if (equal && before.labels.every((label, at) => label === this.labels[at])) return false;
    this.future = [];
    this.past.push(before);
    let bytes = this.past.reduce((sum, each) => sum + each.labels.length, 0);
    while (bytes > UNDO_BYTES) bytes -= this.past.shift().labels.length;
    return true;
  }

  // Undo and redo: from one pile to the other.
  turn(from, to) {
    const step = from.pop();
    if (!step) return false;
    to.push(this.get());
    this.put(step);
    return true;
  }
}

// --- what people see and touch ---------------------------------------------------------------------------------------

const TOOLS = [
  ["brush", "Brush", "b", "paint; with Shift a straight line from where the last stroke ended"],
  ["line", "Line", "l", "drag a straight line"],
  ["fill", "Fill", "f", "give a whole connected region the chosen class"],
  ["erase", "Erase", "x", "paint background; the right mouse button does so with every tool"],
  ["pick", "Pick", "p", "choose the class under the pointer; Alt does so with every tool"],
  ["move", "Move", "h", "move the picture when it is enlarged; two fingers do so with every tool"],
];

const ACTIONS = [
  ["undo", "Undo", "Undo (Ctrl+Z)"],
  ["redo", "Redo", "Redo (Ctrl+Shift+Z)"],
  ["mirror", "Mirror", "Draw on both sides of the face at once (M); left and right classes are swapped"],
  ["names", "Names", "Show the names of regions and the outline of the chosen class (N)"],
  ["safe", "Safe colours", "Show colours that colour-blind people tell apart; the mask stays as it is"],
  ["out", "−", "Smaller (-)"],
  ["in", "+", "Larger (+)"],
  ["fit", "Fit", "Whole picture"],
  ["clear", "Clear", "Make everything background; Undo brings it back"],
  ["open", "Open…", "Load a mask from a picture file"],
];

const FRAME = `
  <div class="mp-box" role="group" aria-label="Mask painter">
    <div class="mp-bar">
      <div class="mp-tools" role="radiogroup" aria-label="Tool"></div>
      <label class="mp-size" title="Brush size ([ and ])">
        Size <input type="range" min="1" max="${MAX_BRUSH}" aria-label="Brush size in pixels"><output></output>
      </label>
      <div class="mp-actions"></div>
    </div>
    <div class="mp-body">
      <div class="mp-paper">
        <div class="mp-stage" tabindex="0" role="application">
          <canvas class="mp-mask"></canvas><canvas class="mp-overlay" aria-hidden="true"></canvas>
        </div>
        <div class="mp-status"></div>
      </div>
      <div class="mp-side">
        <div class="mp-palette" role="radiogroup" aria-label="Class"></div>
        <p>Left and right are the person's: their left eye is on the right of the picture.</p>
      </div>
    </div>
    <div class="mp-live" role="status"></div>
    <input type="file" accept="image/*" hidden>
  </div>`;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let painters = 0; // radio buttons of one page need groups of their own

class Painter {
  constructor(root, { labels, width, height, classes, brush, readonly, onChange, onFile }) {
    Object.assign(this, { root, classes, onChange, onFile, readonly: Boolean(readonly) });
    this.id = `mogle-painter-${++painters}`;
    this.tool = "brush";
    this.chosen = Math.min(1, classes.length - 1);
    this.view = { zoom: 1, x: 0, y: 0 };
    this.fingers = new Map();
    this.show = { mirror: false, names: true, safe: false };
    this.build();
    const mirrors = classes.map((each) => each.mirror ?? each.index);
    this.sheet = new Sheet(this.mask, mirrors, { labels, width, height });
    this.setBrush(brush ?? Math.max(1, Math.round(Math.max(width, height) / 24)));
    this.recolor();
    this.listen();
    this.changed();
    this.select(this.chosen);
  }

  build() {
    this.root.classList.add("mogle-painter");
    this.root.innerHTML = FRAME;
    for (const part of ["box", "tools", "actions", "stage", "mask", "overlay", "status", "palette", "live"]) {
      this[part] = this.root.querySelector(`.mp-${part}`);
    }
    const [size, sizeText, file] = this.box.querySelectorAll("input, output");
    Object.assign(this, { size, sizeText, file });
    const radio = (group, value, title, ...children) => {
      const input = make("input", { type: "radio", name: `${this.id}-${group}`, value });
      return make("label", { title }, input, ...children);
    };
    for (const [tool, text, shortcut, help] of TOOLS) {
      this.tools.append(radio("tool", tool, `${text} (${shortcut.toUpperCase()}): ${help}`, text));
    }
    for (const [action, text, title] of ACTIONS) {
      if (action === "open" && !this.onFile) continue;
      this.actions.append(make("button", { type: "button", "data-do": action, title }, text));
    }
    for (const { index, name, note, key } of this.classes) {
      const shown = [make("span", { class: "mp-swatch" }), name, make("kbd", { "aria-hidden": "true" }, key ?? "")];
      this.palette.append(radio("class", index, note ?? name, ...shown));
    }
    // JupyterLab takes plain letters for its own commands (x cuts the cell) unless the focused element itself says no.
    for (const each of this.box.querySelectorAll("button, input, [tabindex]")) {
      each.setAttribute("data-lm-suppress-shortcuts", "true");
    }
  }

  listen() {
    const on = (element, type, handle, options) => element.addEventListener(type, handle, options);
    on(this.stage, "pointerdown", (event) => this.down(event));
    on(this.stage, "pointermove", (event) => this.move(event));
    on(this.stage, "pointerup", (event) => this.up(event));
    on(this.stage, "pointercancel", (event) => this.up(event, true));
    on(this.stage, "pointerleave", () => this.hover(null));
    on(this.stage, "contextmenu", (event) => event.preventDefault());
    on(this.stage, "wheel", (event) => this.wheel(event), { passive: false });
    on(this.box, "keydown", (event) => this.key(event));
    on(this.tools, "change", (event) => this.setTool(event.target.value));
    on(this.palette, "change", (event) => this.select(Number(event.target.value)));
    on(this.size, "input", () => this.setBrush(Number(this.size.value)));
    on(this.box, "click", (event) => this.act(event.target.dataset?.do));
    on(this.file, "change", () => this.open(this.file.files[0]));
    this.observer = new ResizeObserver(() => this.look());
    this.observer.observe(this.stage);
    this.setTool(this.tool);
  }

  // --- pointers ------------------------------------------------------------------------------------------------------

  // The pixel of the mask under a pointer; beyond the edges too, so that strokes may leave the picture and return.
  place({ clientX, clientY }) {
    const { left, top, width, height } = this.mask.getBoundingClientRect();
    const x = Math.floor(((clientX - left) * this.sheet.width) / width);
    return [x, Math.floor(((clientY - top) * this.sheet.height) / height)];
  }

  down(event) {
    event.preventDefault(); // no scrolling, no selecting; focus is therefore given by hand
    this.stage.focus({ preventScroll: true });
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.fingers.size === 2) this.cancel(); // the first finger has painted a dot that was not meant
      if (this.fingers.size > 1) return;
    }
    if (this.stroke || this.grip) return;
    this.stage.setPointerCapture(event.pointerId);
    const at = this.place(event);
    if (event.button === 1 || this.tool === "move") {
      this.grip = { id: event.pointerId, x: event.clientX - this.view.x, y: event.clientY - this.view.y };
    } else if (event.altKey || this.tool === "pick") {
      if (this.sheet.has(at)) this.select(this.sheet.at(at));
    } else if (!this.readonly) {
      this.begin(event, at);
    }
  }

  begin(event, at) {
    const index = event.button === 2 || this.tool === "erase" ? BACKGROUND : this.chosen;
    const before = this.sheet.get();
    if (this.tool === "fill") {
      if (this.sheet.has(at)) this.sheet.fill(at, index, this.show.mirror);
      return this.finish(before);
    }
    const from = event.shiftKey && this.last ? this.last : at;
    const straight = event.shiftKey || this.tool === "line";
    this.stroke = { id: event.pointerId, index, before, from, at, straight };
    if (!straight) this.draw(at, at);
    this.schedule();
  }

  draw(from, to) {
    this.outline = null; // of the chosen class; found anew when it is next drawn
    this.sheet.stamp(from, to, discRows(this.brush), this.stroke.index, this.show.mirror);
  }

  move(event) {
    if (this.fingers.has(event.pointerId) && this.fingers.size > 1) return this.pinch(event);
    this.hover(this.place(event));
    if (this.grip?.id === event.pointerId) {
      [this.view.x, this.view.y] = [event.clientX - this.grip.x, event.clientY - this.grip.y];
      return this.look();
    }
    if (this.stroke?.id !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? []; // all places since the last frame, not only the newest
    for (const each of events.length ? events : [event]) {
      const to = this.place(each);
      if (!this.stroke.straight) this.draw(this.stroke.at, to);
      this.stroke.at = to;
    }
  }

  up(event, cancelled = false) {
    this.fingers.delete(event.pointerId);
    if (this.grip?.id === event.pointerId) this.grip = null;
    if (this.stroke?.id !== event.pointerId) return;
    if (cancelled) return this.cancel();
    this.end(this.place(event));
  }

  end(at) {
    const { straight, from, at: newest, before } = this.stroke;
    this.draw(straight ? from : newest, at);
    [this.stroke, this.last] = [null, at];
    this.finish(before);
  }

  cancel() {
    this.grip = null;
    if (!this.stroke) return;
    this.sheet.put(this.stroke.before);
    [this.stroke, this.outline] = [null, null];
    this.schedule();
  }

  // Two fingers enlarge and move; what lies between them stays between them.
  pinch(event) {
    const middle = () => {
      const [[x0, y0], [x1, y1]] = this.fingers.values();
      return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, apart: Math.hypot(x1 - x0, y1 - y0) || 1 };
    };
    const old = middle();
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const now = middle();
    this.view.x += now.x - old.x;
    this.view.y += now.y - old.y;
    this.zoom(now.apart / old.apart, now.x, now.y);
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls; a pinch on a touchpad arrives with ctrlKey
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 200), event.clientX, event.clientY);
  }

  // --- view ----------------------------------------------------------------------------------------------------------

  zoom(factor, clientX, clientY) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    const [x, y] = [(clientX ?? left + width / 2) - left, (clientY ?? top + height / 2) - top];
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.view.zoom * factor));
    const ratio = zoom / this.view.zoom;
    this.view = { zoom, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio };
    this.look();
  }

  // Places the canvas in its stage; it never leaves a gap at an edge.
  look() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const { zoom } = this.view;
    this.view.x = Math.min(0, Math.max(width * (1 - zoom), this.view.x));
    this.view.y = Math.min(0, Math.max(height * (1 - zoom), this.view.y));
    this.mask.style.transform = `translate(${this.view.x}px, ${this.view.y}px) scale(${zoom})`;
    this.schedule();
  }

  recolor() {
    const bytes = new DataView(this.sheet.colors.buffer);
    for (const { index, color, safe } of this.classes) {
      const shown = (this.show.safe && safe) || color;
      bytes.setUint32(4 * index, Number.parseInt(shown.slice(1), 16) * 256 + 255); // R, G, B, A as ImageData has them
      const swatch = this.palette.children[index].querySelector(".mp-swatch");
      swatch.style.background = shown;
    }
    this.sheet.repaint();
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawOverlay();
    });
  }

  drawOverlay() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const sharp = window.devicePixelRatio || 1;
    [this.overlay.width, this.overlay.height] = [Math.round(width * sharp), Math.round(height * sharp)];
    const context = this.overlay.getContext("2d");
    context.scale(sharp, sharp);
    const scale = (width / this.sheet.width) * this.view.zoom;
    const toScreen = (x, y) => [this.view.x + x * scale, this.view.y + y * scale];
    if (this.show.names) {
      const { labels, width: columns, height: rows } = this.sheet;
      const outline = (this.outline ??= outlineOf(labels, columns, rows, this.chosen));
      const path = new Path2D();
      for (let at = 0; at < outline.length; at += 4) {
        path.moveTo(...toScreen(outline[at], outline[at + 1]));
        path.lineTo(...toScreen(outline[at + 2], outline[at + 3]));
      }
      this.twice(context, path);
      this.drawNames(context, scale, width, height);
    }
    if (this.pointer && this.tool !== "pick" && this.tool !== "move" && !this.readonly) {
      const [x, y] = this.pointer;
      const odd = (this.brush % 2) / 2;
      const brush = new Path2D();
      if (this.tool !== "fill") brush.arc(...toScreen(x + odd, y + odd), Math.max(2, (this.brush / 2) * scale), 0, 7);
      if (this.stroke?.straight) {
        brush.moveTo(...toScreen(this.stroke.from[0] + 0.5, this.stroke.from[1] + 0.5));
        brush.lineTo(...toScreen(x + 0.5, y + 0.5));
      }
      this.twice(context, brush);
    }
  }

  // White within black: seen on any colour.
  twice(context, path) {
    for (const [color, width] of [["#000", 3], ["#fff", 1.25]]) {
      [context.strokeStyle, context.lineWidth] = [color, width];
      context.stroke(path);
    }
  }

  // The name of each region at its inmost place; of a region too small for it, beside it, where it hides least, with a
  // line. Names that would lie on others are left out: they come when the picture is enlarged.
  drawNames(context, scale, width, height) {
    context.font = "600 12px system-ui, sans-serif";
    [context.textAlign, context.textBaseline, context.lineJoin] = ["center", "middle", "round"];
    const roomy = ({ radius }) => radius * scale >= 10;
    const seen = this.regions.slice(0, 200).filter(({ radius }) => radius * scale >= 3);
    const small = new Set(seen.filter((region) => !roomy(region)).map(({ index }) => index));
    const under = (x, y) => [Math.floor((x - this.view.x) / scale), Math.floor((y - this.view.y) / scale)];
    const taken = [];
    for (const region of seen) {
      const [x, y] = [this.view.x + region.x * scale, this.view.y + region.y * scale];
      if (x < 0 || y < 0 || x > width || y > height) continue;
      const name = this.classes[region.index]?.name ?? "";
      const half = context.measureText(name).width / 2 + 3;
      const away = region.radius * scale + 11;
      const shifts = roomy(region) ? [[0, 0]] : [[0, -away], [0, away], [half + away, 0], [-half - away, 0]];
      const places = shifts.map(([dx, dy]) => ({
        x: Math.min(width - half, Math.max(half, x + dx)),
        y: Math.min(height - 9, Math.max(9, y + dy)),
        half,
      }));
      const clash = (a, b) => Math.abs(a.x - b.x) < a.half + b.half && Math.abs(a.y - b.y) < 15;
      const hides = (place) => {
        const text = [-1, -0.5, 0, 0.5, 1].map((part) => under(place.x + part * half, place.y));
        const line = [0.4, 0.6, 0.8].map((part) => under(x + part * (place.x - x), y + part * (place.y - y)));
        const crossed = line.filter((at) => this.sheet.at(at) !== region.index);
        return [...text, ...crossed].filter((at) => small.has(this.sheet.at(at))).length;
      };
      const free = places.filter((place) => !taken.some((other) => clash(place, other)));
      const best = free.sort((a, b) => hides(a) - hides(b))[0];
      if (!best) continue;
      taken.push(best);
      if (!roomy(region)) this.twice(context, new Path2D(`M${x},${y}L${best.x},${best.y}`));
      [context.strokeStyle, context.lineWidth, context.fillStyle] = ["#000", 3.5, "#fff"];
      context.strokeText(name, best.x, best.y);
      context.fillText(name, best.x, best.y);
    }
  }

  hover(at) {
    this.pointer = at;
    this.describe();
    this.schedule();
  }

  describe() {
    const { sheet, pointer } = this;
    const { width, height } = sheet;
    const name = (index) => this.classes[index]?.name;
    const over = pointer && sheet.has(pointer);
    const where = over ? `${name(sheet.at(pointer))} (${pointer.join(", ")})` : `painting ${name(this.chosen)}`;
    this.status.textContent = `${where} · brush ${this.brush} px · mask ${width} × ${height}`;
  }

  say(text, wrong = false) {
    this.live.textContent = text;
    this.live.classList.toggle("mp-wrong", wrong);
  }

  // --- commands ------------------------------------------------------------------------------------------------------

  // After a change by hand: kept for undo and told, unless every pixel is what it was.
  finish(before) {
    if (this.sheet.keep(before)) this.changed(true);
    this.schedule();
  }

  changed(tell = false) {
    const { width, height, labels } = this.sheet;
    this.regions = regionsOf(labels, width, height);
    this.outline = null;
    this.stage.style.aspectRatio = `${width} / ${height}`;
    this.stage.style.setProperty("--mp-ratio", width / height);
    this.stage.setAttribute("aria-label", `Mask of ${width} by ${height} pixels; arrow keys move, space paints`);
    this.buttons();
    this.describe();
    this.look();
    if (tell) this.onChange?.(this.sheet.get());
  }

  buttons() {
    const { past, future } = this.sheet;
    const fixed = this.readonly;
    const off = { undo: fixed || !past.length, redo: fixed || !future.length, clear: fixed, open: fixed };
    for (const button of this.box.querySelectorAll("[data-do]")) {
      const action = button.dataset.do;
      if (off[action] && button.matches(":focus")) this.stage.focus({ preventScroll: true }); // keys go on working
      button.disabled = Boolean(off[action]);
      if (action in this.show) button.setAttribute("aria-pressed", String(this.show[action]));
    }
  }

  set(labels, width, height) {
    this.cancel();
    const before = this.sheet.get();
    this.sheet.put({ labels, width, height });
    if (!this.sheet.keep(before)) return; // the very same: nothing to take back
    if (width !== before.width || height !== before.height) this.view = { zoom: 1, x: 0, y: 0 };
    this.changed();
  }

  select(index) {
    [this.chosen, this.outline] = [index, null];
    this.palette.children[index].querySelector("input").checked = true;
    this.describe();
    this.schedule();
  }

  setTool(tool) {
    this.tool = tool;
    this.tools.querySelector(`[value=${tool}]`).checked = true;
    this.stage.dataset.tool = tool;
    this.schedule();
  }

  setBrush(size) {
    this.brush = Math.min(MAX_BRUSH, Math.max(1, size));
    this.size.value = this.brush;
    this.sizeText.textContent = `${this.brush} px`;
    this.describe();
    this.schedule();
  }

  act(action) {
    const { sheet } = this;
    if (this.readonly && ["undo", "redo", "clear", "open"].includes(action)) return;
    if (action === "undo" && sheet.turn(sheet.past, sheet.future)) this.changed(true);
    if (action === "redo" && sheet.turn(sheet.future, sheet.past)) this.changed(true);
    if (action === "clear") {
      const before = sheet.get();
      sheet.put({ ...before, labels: new Uint8Array(before.labels.length).fill(BACKGROUND) });
      this.finish(before);
    }
    if (action === "in" || action === "out") this.zoom(action === "in" ? 1.5 : 1 / 1.5);
    if (action === "fit") this.zoom(0);
    if (action === "open") this.file.click();
    if (action in this.show) {
      this.show[action] = !this.show[action];
      if (action === "safe") this.recolor();
      this.buttons();
      this.schedule();
    }
  }

  // A file's bytes go to whoever can decode them: a canvas would give colours changed by colour management.
  async open(file) {
    this.file.value = ""; // so that the same file can be chosen again
    if (!file) return;
    if (file.size > FILE_BYTES) return this.say(`${file.name} is too large for a mask`, true);
    try {
      await this.onFile(new Uint8Array(await file.arrayBuffer()), file.name);
    } catch (error) {
      this.say(error.message, true);
    }
  }

  key(event) {
    const name = event.key.toLowerCase();
    const arrows = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
    const used = () => event.preventDefault();
    if ((event.ctrlKey || event.metaKey) && (name === "z" || name === "y")) {
      used();
      return this.act(name === "y" || event.shiftKey ? "redo" : "undo");
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === this.stage && (name in arrows || name === " ")) {
      used();
      return name === " " ? this.dot() : this.step(arrows[name], event.shiftKey ? 10 : 1);
    }
    const tool = TOOLS.find(([, , shortcut]) => shortcut === name);
    const chosen = this.classes.find(({ key }) => key === name);
    const action = { m: "mirror", n: "names", "+": "in", "=": "in", "-": "out" }[name];
    if (name === "escape") this.cancel();
    if (tool) this.setTool(tool[0]);
    if (chosen) this.select(chosen.index);
    if (action) this.act(action);
    const larger = Math.max(1, Math.round(this.brush / 8));
    if (name === "[") this.setBrush(this.brush - larger);
    if (name === "]") this.setBrush(this.brush + larger);
  }

  step([x, y], by) {
    const { width, height } = this.sheet;
    const [column, row] = this.pointer ?? [width >> 1, height >> 1];
    const within = (value, limit) => Math.min(limit - 1, Math.max(0, value));
    this.hover([within(column + x * by, width), within(row + y * by, height)]);
    this.say(this.status.textContent);
  }

  // The space bar does what a click at the cursor would.
  dot() {
    const at = this.pointer;
    if (!at || this.stroke) return;
    if (this.tool === "pick") return this.select(this.sheet.at(at));
    if (this.readonly || this.tool === "move") return;
    this.begin({ button: 0 }, at);
    if (this.stroke) this.end(at);
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.root.replaceChildren();
    this.root.classList.remove("mogle-painter");
  }
}

// Builds a painter in `root`. Options: labels (Uint8Array), width, height; classes, as Python's `classes()` gives them;
// brush (size in pixels), readonly; onChange({labels, width, height}), called when a change is complete, never while it
// is being drawn; onFile(bytes, name), which decodes a mask file and calls `set`, and may throw what is then said.
export function mount(root, options) {
  const painter = new Painter(root, options);
  return {
    set: (labels, width, height) => painter.set(labels, width, height), // a step for undo; does not call onChange
    get: () => painter.sheet.get(),
    select: (index) => painter.select(index),
    say: (text, wrong) => painter.say(text, wrong),
    destroy: () => painter.destroy(),
  };
}

// The same as an anywidget: `label_map` is {width, height, labels: DataView}; files go to Python as custom messages.
function render({ model, el }) {
  const state = () => {
    const { width, height, labels } = model.get("label_map");
    return { width, height, labels: new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength) };
  };
  const root = make("div");
  el.append(root);
  const painter = mount(root, {
    ...state(),
    classes: model.get("classes"),
    brush: model.get("brush") || undefined,
    readonly: model.get("readonly"),
    onChange: ({ width, height, labels }) => {
      model.set("label_map", { width, height, labels: new DataView(labels.buffer) });
      model.save_changes();
    },
    onFile: (bytes, name) => model.send({ kind: "file", name }, undefined, [new DataView(bytes.buffer)]),
  });
  const changed = () => {
    const { labels, width, height } = state();
    painter.set(labels, width, height); // does nothing where it comes from this very painter
  };
  const told = ({ kind, text, wrong }) => kind === "say" && painter.say(text, wrong);
  model.on("change:label_map", changed);
  model.on("msg:custom", told);
  return () => {
    model.off("change:label_map", changed);
    model.off("msg:custom", told);
    painter.destroy();
  };
}

export default { render };
