// The painter inside gr.HTML: `element`, `props`, `watch` come from gradio, `mount` from painter.js.
const address = new URL("mogle/painter.js", document.baseURI).href;
const root = element.querySelector(".mogle-painter-root");

function toBytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function toText(bytes) {
  let letters = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    letters += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(letters);
}

import(address).then(
  ({ mount }) => {
    const first = props.value;
    const painter = mount(root, {
      labels: toBytes(first.labels),
      width: first.width,
      height: first.height,
      classes: props.classes,
      onChange: ({ labels, width, height }) => {
        props.value = { width, height, labels: toText(labels) };
      },
    });
    element.painter = painter;
    watch("value", () => {
      const { labels, width, height } = props.value;
      painter.set(toBytes(labels), width, height);
    });
  },
  (error) => {
    root.textContent = `The painter cannot be loaded (${error}); masks can still be opened from files.`;
  },
);
