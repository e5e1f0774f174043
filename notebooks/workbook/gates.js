// The gate viewer: for each step of sampling 20 maps of weights, the expert that leads at each place, and all weights of
// the place under the pointer. Everything that it shows came with the model, so it answers without the kernel.

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Weights as uint16 of 65535, step by step, place by place, expert by expert -> numbers from 0 to 1.
export function weightsOf(view) {
  const found = new Float32Array(view.byteLength / 2);
  for (let i = 0; i < found.length; i++) found[i] = view.getUint16(2 * i, true) / 65535;
  return found;
}

// The experts of one place, heaviest first: [expert, weight].
export function ranking(weights, start, count) {
  const found = Array.from(weights.subarray(start, start + count), (weight, expert) => [expert, weight]);
  return found.sort((a, b) => b[1] - a[1]);
}

const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

// A canvas of one pixel a place, above it the mark of the place that is looked at.
function map(rows, columns, name) {
  const canvas = make("canvas", { width: columns, height: rows });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const mark = make("div", { className: "mg-mark" });
  return { canvas, mark, frame: make("div", { className: "mg-frame" }, canvas, mark) };
}

function paint(canvas, color) {
  const { width, height } = canvas;
  const image = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) image.data.set([...color(place), 255], 4 * place);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function render({ model, el }) {
  const [steps, rows, columns] = ["steps", "rows", "columns"].map((name) => model.get(name));
  const [names, pictures] = [model.get("names"), model.get("pictures")];
  const [experts, scale] = [model.get("colors").map(rgb), model.get("scale").map(rgb)];
  const weights = weightsOf(model.get("weights"));
  const highest = weights.reduce((a, b) => Math.max(a, b), 0);
  let place = -1;

  const slider = make("input", { type: "range", min: 1, max: steps, value: model.get("step") });
  slider.setAttribute("aria-label", "step of sampling");
  const said = make("output");
  const play = make("button", { type: "button", textContent: "Play" });
  const preview = make("img", { alt: "what the picture is expected to become at this step" });
  const leading = map(rows, columns, "the expert with the largest weight at each place");
  const legend = make("ul", { className: "mg-legend" });
  const readout = make("div", { className: "mg-readout" });
  readout.setAttribute("aria-live", "polite");
  const maps = names.map((name) => map(rows, columns, `weights of the expert ${name}`));
  const figure = (body, text) => make("figure", {}, body, make("figcaption", { textContent: text }));
  const mask = make("img", { src: model.get("mask"), alt: "the mask, in its colours", className: "exact" });
  const bar = make("div", { className: "mg-bar" });
  bar.style.background = `linear-gradient(to right, ${model.get("scale").join(", ")})`;
  const root = make(
    "div",
    { className: "mogle-gates" },
    make("div", { className: "mg-steps" }, play, slider, said),
    make(
      "div",
      { className: "mg-top" },
      figure(mask, "mask"),
      figure(preview, "the picture at this step"),
      figure(leading.frame, "who leads at each place"),
      make("div", { className: "mg-side" }, legend, readout),
    ),
    make(
      "div",
      { className: "mg-scale" },
      make("span", { textContent: "weight 0" }),
      bar,
      make("span", { textContent: highest.toFixed(2) }),
    ),
    make("div", { className: "mg-maps" }, ...maps.map(({ frame }, i) => figure(frame, names[i]))),
  );
  el.append(root);

  const at = (where) => ((model.get("step") - 1) * rows * columns + where) * names.length;

  function look() {
    for (const { mark } of [leading, ...maps]) {
      mark.hidden = place < 0;
      const [x, y] = [place % columns, Math.floor(place / columns)];
      Object.assign(mark.style, {
        left: `${(100 * x) / columns}%`,
        top: `${(100 * y) / rows}%`,
        width: `${100 / columns}%`,
        height: `${100 / rows}%`,
      });
    }
    readout.replaceChildren();
    if (place < 0) return readout.append("Point at a place to see all of its weights.");
    const list = make("ol");
    const ranked = ranking(weights, at(place), names.length);
    for (const [expert, weight] of ranked.slice(0, 6)) {
      const line = make("li", { textContent: `${names[expert]} ${weight.toFixed(3)}` });
      line.style.setProperty("--weight", `${(100 * weight) / (highest || 1)}%`);
      list.append(line);
    }
    const rest = ranked.slice(6).reduce((sum, [, weight]) => sum + weight, 0);
    const row = Math.floor(place / columns) + 1;
    readout.append(`Row ${row}, column ${(place % columns) + 1}:`, list, `the other ${names.length - 6}: ${rest.toFixed(3)}`);
  }

  function show() {
    const step = model.get("step");
    slider.value = step;
    said.textContent = `step ${step} of ${steps}`;
    if (pictures.length) preview.src = pictures[Math.min(step, pictures.length) - 1];
    const first = Array.from({ length: rows * columns }, (_, where) => ranking(weights, at(where), names.length)[0][0]);
    paint(leading.canvas, (where) => experts[first[where]]);
    const counts = new Map();
    for (const expert of first) counts.set(expert, (counts.get(expert) ?? 0) + 1);
    const most = [...counts].sort((a, b) => b[1] - a[1]);
    legend.replaceChildren(
      ...most.map(([expert, count]) => {
        const line = make("li", { textContent: `${names[expert]}: ${count} place${count > 1 ? "s" : ""}` });
        line.style.setProperty("--color", model.get("colors")[expert]);
        return line;
      }),
    );
    maps.forEach(({ canvas }, expert) =>
      paint(canvas, (where) => scale[Math.round((255 * weights[at(where) + expert]) / (highest || 1))]),
    );
    look();
  }

  function point(event) {
    const frame = event.target.closest(".mg-frame");
    if (!frame) return;
    const box = frame.getBoundingClientRect();
    const within = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
    const x = within((event.clientX - box.left) / box.width, columns);
    const y = within((event.clientY - box.top) / box.height, rows);
    place = y * columns + x;
    look();
  }

  const go = (step) => {
    model.set("step", step);
    model.save_changes();
  };
  let timer = 0;
  const rest = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  play.onclick = () => {
    if (timer) return rest();
    play.textContent = "Pause";
    if (model.get("step") >= steps) go(1);
    timer = setInterval(() => {
      if (model.get("step") < steps) go(model.get("step") + 1);
      if (model.get("step") >= steps) rest();
    }, 250);
  };
  slider.oninput = () => go(Number(slider.value));
  root.onpointermove = point;
  root.onpointerdown = point;
  model.on("change:step", show);
  show();
  return () => {
    clearInterval(timer);
    model.off("change:step", show);
  };
}

export default { render };
